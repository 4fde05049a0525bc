"""What is counted, billed and logged of requests, also of those that met a fault: one record each."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.engine.faults import End, Fault
from tests.fakes.engine.handle import Engine
from tests.serve_app.asking import CHAT, COMPLETIONS, SEA, hear, metric, post, sent
from tests.serve_app.conftest import UNRESENTFUL, Endpoint, serving
from tests.serve_app.faults.fleets import hosted, in_order, with_hosted, with_keys, with_log
from tests.serve_app.waiting import wait_for


@dataclass
class Logged:
    """A gateway with a request log, which is read when it has ended."""

    endpoint: Endpoint
    directory: Path

    def records(self) -> dict[str, Any]:
        """By request id. Fails when one request has two."""
        lines = [line for path in self.directory.glob("*.jsonl") for line in path.read_text().splitlines()]
        records = {record["request_id"]: record for record in map(json.loads, lines)}
        assert len(records) == len(lines)
        return records


@pytest.fixture
def spec(three_engines: list[Engine], engines: list[Engine], tmp_path: Path) -> Any:
    spec = in_order(three_engines, **UNRESENTFUL, first_byte_timeout_s=10, continuation={"stall_s": 1})
    west = spec.sites[1].model_copy(update={"egress_usd_per_gb": 1000.0})
    sites = (spec.sites[0], west, spec.sites[2])
    return with_log(with_keys(spec.model_copy(update={"sites": sites}), acme={"tenant": "acme-inc"}), str(tmp_path))


@contextmanager
def logged(spec: Any, secrets: dict[str, str] | None = None) -> Iterator[Logged]:
    with serving(spec, secrets) as endpoint:
        yield Logged(endpoint, Path(spec.ingress.request_log))


def named(name: str) -> dict[str, str]:
    return {"x-request-id": name}


def test_every_request_has_one_record_with_its_tokens(spec: Any, engines: list[Engine]) -> None:
    with logged(spec) as log:
        at = log.endpoint
        post(at, CHAT, headers=named("whole"), key="sk-acme")
        hear(at, CHAT, named("usage"))
        post(at, CHAT, headers=named("no-usage"), stream=True)
        post(at, COMPLETIONS, headers=named("completion"), stream=True)
        post(at, CHAT, headers=named("tools"), stream=True, tools=[], n=2)
        post(at, "/v1/messages", headers=named("messages"), model="chat", max_tokens=60, messages=SEA, stream=True)
        post(at, "/v1/embeddings", headers=named("embeddings"), model="embed", input="the sea")
    records = log.records()
    assert list(records) == ["whole", "usage", "no-usage", "completion", "tools", "messages", "embeddings"]
    assert {record["outcome"] for record in records.values()} == {"ok"}
    counted = {name: (record["tokens_in"], record["tokens_out"]) for name, record in records.items()}
    assert counted["whole"] == counted["usage"] == counted["no-usage"] == (22, 60)
    assert counted["completion"] == (19, 60)
    assert counted["tools"][1] == pytest.approx(120, abs=3), "events are counted where no usage is told"
    assert counted["embeddings"][0] > 0
    whole = records["whole"]
    assert (whole["key"], whole["tenant"], whole["model"], whole["site"]) == ("acme", "acme-inc", "chat", "east")
    assert (whole["attempts"], whole["continuations"], whole["status"]) == (1, 0, 200)
    assert (whole["release"], whole["pool"], whole["market"]) == ("0" * 12, "pool", "on_demand")
    assert 0 < records["usage"]["ttft_s"] <= records["usage"]["duration_s"]
    assert records["usage"]["tpot_s"] > 0


def test_dollars_are_slot_seconds_and_egress(spec: Any, engines: list[Engine]) -> None:
    with logged(spec) as log:
        answer = post(log.endpoint, CHAT, headers={**named("east"), "x-rayfleet-site-only": "east"})
        post(log.endpoint, CHAT, headers={**named("west"), "x-rayfleet-site-only": "west"})
    east, west = log.records()["east"], log.records()["west"]
    slot_usd_per_s = 1 * 0.25 / 64 / 3600
    assert 0 < east["usd"] <= east["duration_s"] * slot_usd_per_s * 1.01
    assert west["usd"] == pytest.approx(len(answer.body) * 1000 / 1e9, rel=0.3)


def test_a_continued_stream_is_counted_once(spec: Any, engines: list[Engine]) -> None:
    with logged(spec) as log:
        at = log.endpoint
        asked: dict[str, dict[str, Any]] = {"usage": {"stream_options": {"include_usage": True}}, "none": {}}
        for name, fields in asked.items():
            engines[0].plan(Fault(end=End.CUT, after=20))
            engines[1].plan(Fault(end=End.RESET, after=20, only="/v1/completions"))
            assert post(at, CHAT, headers=named(name), stream=True, **fields).whole
        tokens = 'rayfleet_tokens_total{{kind="{}",model="chat",site="north",tenant="test"}}'
        assert metric(at, tokens.format("output")) == 120
        assert metric(at, tokens.format("input")) == 44
        assert metric(at, 'rayfleet_requests_total{model="chat",outcome="ok",site="north"}') == 2
        assert metric(at, 'rayfleet_continuations_total{mode="tokens",outcome="ok"}') == 2
        assert metric(at, 'rayfleet_continuations_total{mode="tokens",outcome="broken"}') == 2
    for record in log.records().values():
        assert (record["tokens_in"], record["tokens_out"]) == (22, 60)
        assert (record["attempts"], record["continuations"], record["outcome"]) == (1, 2, "ok")
        assert record["site"] == "north"
        assert record["usd"] > 0


def test_what_went_wrong_is_recorded_with_what_was_delivered(spec: Any, engines: list[Engine]) -> None:
    with logged(spec) as log:
        at = log.endpoint
        engines[0].plan(Fault(end=End.CUT, after=5))
        post(at, CHAT, headers=named("cut"), stream=True, logprobs=True)
        engines[0].plan(Fault(end=End.ERROR, after=5))
        post(at, CHAT, headers=named("error"), stream=True, logprobs=True)
        engines[0].plan(Fault(token_s=0.2))
        with sent(at, CHAT, stream=True, max_tokens=400) as client:
            while b"token_ids" not in client.recv(4096):
                pass
            wait_for(lambda: engines[0].seen().requests[-1].tokens >= 4)
        wait_for(lambda: metric(at, 'rayfleet_requests_total{model="chat",outcome="client_left",site="east"}') == 1)
        post(at, CHAT, headers=named("mistake"), temperature=-1)
        for engine in engines:
            engine.always(Fault(status=503))
        post(at, CHAT, headers=named("down"))
        post(at, CHAT, headers=named("unknown"), model="none")
    records = log.records()
    assert (records["cut"]["outcome"], records["cut"]["status"]) == ("cut", 200)
    assert records["cut"]["tokens_out"] == pytest.approx(5, abs=1)
    assert (records["error"]["outcome"], records["error"]["status"]) == ("cut", 200)
    left = next(record for record in records.values() if record["outcome"] == "client_left")
    assert 4 <= left["tokens_out"] < 300
    assert left["usd"] > 0
    assert (records["mistake"]["outcome"], records["mistake"]["status"]) == ("refused", 400)
    assert (records["down"]["outcome"], records["down"]["status"], records["down"]["attempts"]) == ("failed", 503, 3)
    assert records["down"]["usd"] == 0
    assert "unknown" not in records, "it was for no model of the fleet"


def test_hosted_tokens_are_billed_at_list_price(spec: Any, engines: list[Engine]) -> None:
    target = hosted("openai", f"{engines[2].endpoint}/models/chat/v1")
    model = target.models[0].model_copy(update={"name": "chat"})
    spec = with_hosted(spec, target.model_copy(update={"models": (model,)}))
    with logged(spec, {"openai": "site-token"}) as log:
        asked: dict[str, dict[str, Any]] = {
            "whole": {},
            "stream": {"stream": True, "stream_options": {"include_usage": True}},
        }
        for name, fields in asked.items():
            post(log.endpoint, CHAT, headers={**named(name), "x-rayfleet-site-only": "openai"}, **fields)
    for record in log.records().values():
        assert (record["tokens_in"], record["tokens_out"], record["market"]) == (22, 60, "hosted")
        assert math.isclose(record["usd"], 22e-6 + 120e-6)
