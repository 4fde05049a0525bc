"""Hosted targets: an OpenAI-compatible API and Anthropic's, as a last resort or by price."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anthropic
import pytest

from clusters.spec import FleetSpec, HostedSpec
from serve_app.relay.delivery import MAX_TRANSLATED_BYTES
from tests.fakes.engine.faults import End, Fault, too_many
from tests.fakes.engine.handle import Engine
from tests.serve_app.asking import CHAT, COMPLETIONS, FIELDS, SEA, hear, metric, post
from tests.serve_app.conftest import KEY, UNRESENTFUL, Endpoint, serving
from tests.serve_app.faults.fleets import hosted, in_order, requests, with_hosted, with_keys

SECRET = "sk-of-the-provider"
SECRETS = {"openai": SECRET, "claude": SECRET}
GREEDY = {"temperature": 0}
UNAVAILABLE = Fault(status=503)
PROTOCOL = pytest.mark.parametrize("name", ["openai", "claude"])
MODELS = {"openai": "gpt-sea", "claude": "claude-sea"}
FIRST: dict[str, Any] = {
    "policies": {f"{name}_first": {"preset": "primary_standby", "order": [name, "east"]} for name in MODELS}
}


@pytest.fixture(scope="module")
def provider() -> Iterator[Engine]:
    with Engine("provider", models=tuple(MODELS.values()), token=SECRET) as engine:
        yield engine


@pytest.fixture
def target(provider: Engine) -> Iterator[Engine]:
    yield provider
    provider.heal()


def offer(provider: Engine, name: str, **fields: Any) -> HostedSpec:
    """At the provider, under its own name of the model."""
    model = {"model": "chat", "name": MODELS[name], "usd_per_million_input": 1, "usd_per_million_output": 2}
    url = f"{provider.endpoint}/models/{MODELS[name]}/v1"
    protocol = "anthropic" if name == "claude" else "openai"
    return hosted(name, url, **{"protocol": protocol, "models": [model], **fields})


def dear(spec: FleetSpec) -> FleetSpec:
    """Sites that cost a fortune."""
    pools = [site.pools[0].model_copy(update={"usd_per_hour": 1e6}) for site in spec.sites]
    sites = tuple(site.model_copy(update={"pools": (pool,)}) for site, pool in zip(spec.sites, pools, strict=True))
    return spec.model_copy(update={"sites": sites})


# When


@PROTOCOL
def test_the_last_resort_serves_only_when_no_site_can(
    three_engines: list[Engine], engines: list[Engine], target: Engine, name: str
) -> None:
    spec = with_hosted(in_order(three_engines, **UNRESENTFUL, max_attempts=4), offer(target, name))
    with serving(spec, SECRETS) as endpoint:
        well = post(endpoint, CHAT)
        assert well.headers["x-rayfleet-site"] == "east"
        assert requests(target) == [0]
        for engine in engines:
            engine.always(UNAVAILABLE)
        answer = post(endpoint, CHAT)
        assert (answer.status, answer.headers["x-rayfleet-site"]) == (200, name)
        assert answer.headers["x-rayfleet-attempts"] == "4"
        assert answer.json["choices"][0]["message"]["content"] == well.json["choices"][0]["message"]["content"]
    assert requests(target) == [1]


def test_by_price_the_cheaper_one_serves(three_engines: list[Engine], engines: list[Engine], target: Engine) -> None:
    spec = with_hosted(in_order(three_engines, policy="cheapest"), offer(target, "openai", use="by_price"))
    with serving(spec, SECRETS) as endpoint:
        assert post(endpoint, CHAT).headers["x-rayfleet-site"] in {"east", "west", "north"}
    with serving(dear(spec), SECRETS) as endpoint:
        assert post(endpoint, CHAT).headers["x-rayfleet-site"] == "openai"


@pytest.mark.parametrize(
    ("terms", "headers", "key"),
    [
        ({"jurisdiction": "us"}, {"x-rayfleet-jurisdiction": "ch"}, "sk-test-key"),
        ({}, {}, "sk-never"),
        ({"retains_data": True}, {}, "sk-careful"),
        ({"jurisdiction": "us", "retains_data": False}, {}, "sk-swiss"),
    ],
    ids=["header", "never hosted", "no retention", "the key's jurisdiction"],
)
def test_a_target_that_is_not_allowed_is_never_asked(
    three_engines: list[Engine],
    engines: list[Engine],
    target: Engine,
    terms: dict[str, Any],
    headers: dict[str, str],
    key: str,
) -> None:
    for engine in engines:
        engine.always(UNAVAILABLE)
    keys: dict[str, dict[str, Any]] = {
        "never": {"hosted": "never"},
        "careful": {"hosted": "no_retention"},
        "swiss": {"jurisdictions": ["ch"]},
    }
    spec = in_order(three_engines, **UNRESENTFUL, max_attempts=5)
    spec = with_keys(with_hosted(spec, offer(target, "openai", use="by_price", **terms)), **keys)
    with serving(spec, SECRETS) as endpoint:
        assert post(endpoint, CHAT, headers=headers, key=key).status == 503
        abroad = {**headers, "x-rayfleet-jurisdiction": "eu"}
        refused = post(endpoint, CHAT, headers=abroad, key=key)
        assert (refused.status, refused.error["code"]) == (403, "no_allowed_site")
    assert requests(target) == [0]
    assert requests(*engines) == [1, 1, 1]


def test_a_target_that_keeps_nothing_may_serve_careful_keys(
    three_engines: list[Engine], engines: list[Engine], target: Engine
) -> None:
    spec = with_hosted(in_order(three_engines, **FIRST), offer(target, "openai", use="by_price", retains_data=False))
    with serving(with_keys(spec, careful={"hosted": "no_retention", "policy": "openai_first"}), SECRETS) as endpoint:
        assert post(endpoint, CHAT, key="sk-careful").headers["x-rayfleet-site"] == "openai"


# How


@pytest.fixture(scope="module")
def shared(three_engines: list[Engine], provider: Engine) -> Iterator[Endpoint]:
    both = (offer(provider, name, use="by_price") for name in MODELS)
    with serving(with_hosted(in_order(three_engines, **UNRESENTFUL, **FIRST), *both), SECRETS) as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(shared: Endpoint, engines: list[Engine], target: Engine) -> Endpoint:
    return shared


def only(name: str) -> dict[str, str]:
    return {"x-rayfleet-site-only": name}


@PROTOCOL
def test_whole_and_streamed_answers_are_the_same_as_a_sites(endpoint: Endpoint, target: Engine, name: str) -> None:
    at_home = hear(endpoint, CHAT, only("east"))
    abroad = hear(endpoint, CHAT, only(name))
    assert (abroad.text, abroad.finish_reasons, abroad.usages) == (
        at_home.text,
        at_home.finish_reasons,
        at_home.usages,
    )
    assert abroad.token_ids == ()
    whole = endpoint.client().chat.completions.create(**FIELDS[CHAT], extra_headers=only(name))
    assert whole.choices[0].message.content == at_home.text
    assert whole.usage is not None
    assert whole.usage.completion_tokens == at_home.usages[0][1]
    series = f'rayfleet_tokens_total{{kind="output",model="chat",site="{name}",tenant="test"}}'
    assert metric(endpoint, series) == 2 * at_home.usages[0][1]


@PROTOCOL
def test_a_stranger_learns_nothing_but_the_request(endpoint: Endpoint, target: Engine, name: str) -> None:
    headers = {**only(name), "x-request-id": "mine", "cookie": "a=b", "x-internal": "secret", "x-rayfleet-session": "s"}
    assert post(endpoint, CHAT, headers=headers, stream=True).status == 200
    (seen,) = target.seen().requests
    assert seen.json["model"] == MODELS[name]
    assert "return_token_ids" not in seen.json
    assert not {"cookie", "x-internal", "x-rayfleet-session", "x-rayfleet-site-only"} & set(seen.headers)
    credentials = seen.headers.get("x-api-key") or seen.headers["authorization"].removeprefix("Bearer ")
    assert credentials == SECRET
    assert KEY not in str(seen)


def test_completions_go_to_openais_protocol_only(endpoint: Endpoint, target: Engine) -> None:
    assert post(endpoint, COMPLETIONS, headers=only("openai")).status == 200
    refused = post(endpoint, COMPLETIONS, headers=only("claude"))
    assert refused.status >= 400
    assert requests(target) == [1]


@PROTOCOL
def test_anthropics_own_client_is_served(endpoint: Endpoint, target: Engine, name: str) -> None:
    at_home = hear(endpoint, CHAT, only("east"))
    client = anthropic.Anthropic(base_url=endpoint.url, api_key=KEY, max_retries=0)
    with client:
        message = client.messages.create(
            model="chat", max_tokens=60, messages=SEA, extra_body=GREEDY, extra_headers=only("claude")
        )
        with client.messages.stream(
            model="chat", max_tokens=60, messages=SEA, extra_body=GREEDY, extra_headers=only("east")
        ) as stream:
            streamed = stream.get_final_text()
    (block,) = message.content
    assert block.type == "text"
    assert block.text == streamed == at_home.text


# When they fail


@PROTOCOL
def test_a_busy_target_is_quoted_in_openais_words(endpoint: Endpoint, target: Engine, name: str) -> None:
    target.plan(too_many("1"))
    answer = post(endpoint, CHAT, headers=only(name))
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert set(answer.json) == {"error"}
    assert "provider says 429" in answer.error["message"]


@PROTOCOL
@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_is_between_us_and_the_provider_is_not_told(
    endpoint: Endpoint, target: Engine, name: str, status: int
) -> None:
    target.plan(Fault(status=status))
    answer = post(endpoint, CHAT, headers=only(name))
    assert (answer.status, answer.error["code"]) == (502, "upstream_failed")
    assert "provider says" not in answer.error["message"]


def test_a_huge_answer_passes_but_is_not_translated(endpoint: Endpoint, target: Engine) -> None:
    target.plan(Fault(padding=MAX_TRANSLATED_BYTES), Fault(padding=MAX_TRANSLATED_BYTES))
    assert len(post(endpoint, CHAT, headers=only("openai")).body) > MAX_TRANSLATED_BYTES
    refused = post(endpoint, CHAT, headers=only("claude"))
    assert refused.status == 502
    assert str(MAX_TRANSLATED_BYTES) in refused.error["message"]


@PROTOCOL
@pytest.mark.parametrize("end", [End.CUT, End.MID_EVENT, End.ERROR], ids=lambda end: end.name)
def test_a_stream_that_a_target_cuts_goes_on_at_a_site(
    endpoint: Endpoint, engines: list[Engine], target: Engine, name: str, end: End
) -> None:
    for engine in (*engines, target):
        engine.behave(canonical=True)
    to_the_end = {"messages": [{"role": "user", "content": "Sing of the sea"}], "max_tokens": 1000}
    undisturbed = hear(endpoint, CHAT, only("east"), **to_the_end)
    target.plan(Fault(end=end, after=7))
    heard = hear(endpoint, CHAT, {"x-rayfleet-policy": f"{name}_first"}, **to_the_end)
    assert undisturbed.finish_reasons == ("stop",)
    assert replace(heard, usages=()) == replace(undisturbed, usages=())
    ((prompt, answer, both),) = heard.usages
    assert prompt + answer == both == undisturbed.usages[0][2]
    # Anthropic's events don't tell tokens that have no text of their own.
    assert 0 <= undisturbed.usages[0][1] - answer <= (3 if name == "claude" else 0)
    assert (requests(target), requests(engines[0])) == ([1], [2])


def test_a_stream_that_a_site_cuts_does_not_go_on_at_a_target(
    three_engines: list[Engine], engines: list[Engine], target: Engine
) -> None:
    order = {"openai_second": {"preset": "primary_standby", "order": ["east", "openai", "west"]}}
    spec = in_order(three_engines, policy="openai_second", policies=order)
    with serving(with_hosted(spec, offer(target, "openai", use="by_price")), SECRETS) as endpoint:
        undisturbed = hear(endpoint, CHAT)
        engines[0].plan(Fault(end=End.CUT, after=7))
        assert hear(endpoint, CHAT) == undisturbed
    assert requests(target) == [0]
