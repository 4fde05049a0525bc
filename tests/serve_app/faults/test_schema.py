"""Schemathesis on our own OpenAPI document: whatever it sends, the answer is one that the document knows."""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serve_app.gateway import Gateway
from tests.fakes.engine.handle import Engine
from tests.serve_app.conftest import KEY, UNRESENTFUL, fleet_spec, serving
from tests.serve_app.faults.document import document

EXAMPLES = 40
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


def test_every_answer_is_one_that_the_document_knows(three_engines: list[Engine], engines: list[Engine]) -> None:
    for engine in engines:
        engine.behave(max_model_len=128)
    spec = fleet_spec(three_engines, **UNRESENTFUL)
    told = document(Gateway(spec, dict.fromkeys(("east", "west", "north"), "x")).app)
    with serving(spec) as endpoint:
        for operations in schemathesis.openapi.from_dict(told).values():
            for operation in operations.values():
                try_out(operation, endpoint.url)


def try_out(operation: Any, url: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        answer = case.call(base_url=url, headers={"authorization": f"Bearer {KEY}"}, timeout=60)
        case.validate_response(answer, checks=CHECKS)

    ask()
