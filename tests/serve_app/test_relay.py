"""The relay, end to end: OpenAI's client → a real server → the gateway → sites that misbehave."""

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest

from tests.fakes.site import HANG, RESET, SSE, End, FakeSite, Reply, error, events
from tests.serve_app.conftest import IN_ORDER, KEY, Endpoint, fleet_spec, serving
from tests.serve_app.waiting import wait_for

HELLO: Any = [{"role": "user", "content": "hello"}]
TOOLS: Any = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]


def ask(endpoint: Endpoint, **fields: Any) -> Any:
    """The raw response of one chat completion."""
    client = endpoint.client()
    return client.chat.completions.with_raw_response.create(**{"model": "chat", "messages": HELLO, **fields})


def post(endpoint: Endpoint, body: bytes, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """One request without OpenAI's client."""
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=30)
    try:
        sent = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", "/v1/chat/completions", body, {**sent, **named})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def chat_body(**fields: Any) -> bytes:
    return json.dumps({"model": "chat", "messages": HELLO, **fields}).encode()


def metrics(endpoint: Endpoint) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=30)
    try:
        connection.request("GET", "/metrics", headers={"authorization": f"Bearer {KEY}"})
        return connection.getresponse().read().decode()
    finally:
        connection.close()


# What passes


def test_an_answer_passes_byte_for_byte_with_the_site_and_the_attempts(endpoint: Endpoint) -> None:
    raw = ask(endpoint)
    site = raw.headers["x-rayfleet-site"]
    assert raw.parse().choices[0].message.content == f"hello from {site}"
    assert raw.headers["x-rayfleet-attempts"] == "1"
    assert b'"object" : "answer" , ' in raw.content


def test_completions_and_embeddings(endpoint: Endpoint) -> None:
    completion = endpoint.client().completions.create(model="chat", prompt="hello")
    assert completion.choices[0].text.startswith("hello from ")
    embedded = endpoint.client().embeddings.create(model="embed", input="hello", encoding_format="float")
    assert embedded.data[0].embedding == [0.5]


def test_a_site_gets_the_body_untouched_its_own_token_and_no_secret_of_the_client(
    endpoint: Endpoint, sites: list[FakeSite]
) -> None:
    body = b'{ "model":"chat",  "messages":[{"role":"user","content":"h\\u00e9"}], "new_field": 1.50 }'
    status, _, _ = post(
        endpoint,
        body,
        x_rayfleet_site_only="west",
        x_request_id="mine-1",
        cookie="a=b",
        connection="keep-alive, x-hop",
        x_hop="1",
        x_kept="2",
    )
    assert status == 200
    (received,) = sites[1].requests
    assert (received.method, received.path, received.body) == ("POST", "/models/chat/v1/chat/completions", body)
    assert received.headers["authorization"] == "Bearer site-token"
    assert received.headers["x-request-id"] == "mine-1"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["x-kept"] == "2"
    assert not {"cookie", "x-hop", "x-rayfleet-site-only"} & set(received.headers)


def test_a_request_id_that_may_not_stand_in_a_log_line_is_replaced(endpoint: Endpoint, sites: list[FakeSite]) -> None:
    post(endpoint, chat_body(), x_rayfleet_site_only="east", x_request_id="x y")
    assert sites[0].requests[0].headers["x-request-id"] not in ("", "x y")


def test_headers_of_the_hop_and_cookies_stop_here(endpoint: Endpoint, sites: list[FakeSite]) -> None:
    headers = (("content-type", "application/json"), ("set-cookie", "a=b"), ("server", "inner"), ("x-engine", "1"))
    for site in sites:
        site.otherwise = Reply(headers=(*headers, ("connection", "x-hop"), ("x-hop", "1")), chunks=(b"{}",))
    _, received, _ = post(endpoint, chat_body())
    assert received["x-engine"] == "1"
    assert received.get("server") != "inner"
    assert not {"set-cookie", "x-hop"} & set(received)


def test_concurrent_streams_arrive_in_order_and_end_with_done(endpoint: Endpoint, sites: list[FakeSite]) -> None:
    words = [f"w{number} " for number in range(50)]
    for site in sites:
        site.otherwise = events(*words)

    async def read(client: openai.AsyncOpenAI) -> list[str | None]:
        stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
        return [chunk.choices[0].delta.content async for chunk in stream]

    async def read_many() -> list[list[str | None]]:
        async with openai.AsyncOpenAI(base_url=f"{endpoint.url}/v1", api_key=KEY, max_retries=0) as client:
            return await asyncio.gather(*(read(client) for _ in range(32)))

    assert asyncio.run(read_many()) == [words] * 32
    assert all(site.requests for site in sites)
    assert post(endpoint, chat_body(stream=True))[2].endswith(b"data: [DONE]\n\n")


def test_half_an_event_waits_for_its_other_half(endpoint: Endpoint, sites: list[FakeSite]) -> None:
    whole = b"".join(events("a", "b").chunks)
    for site in sites:
        site.otherwise = Reply(headers=(SSE,), chunks=[whole[at : at + 7] for at in range(0, len(whole), 7)])
    assert post(endpoint, chat_body(stream=True))[2] == whole


@pytest.mark.parametrize("name", ["east", "west", "north"])
def test_a_request_may_be_pinned_to_a_site(endpoint: Endpoint, name: str) -> None:
    for _ in range(5):
        assert ask(endpoint, extra_headers={"x-rayfleet-site-only": name}).headers["x-rayfleet-site"] == name


# Elsewhere, as long as nothing has begun


@pytest.mark.parametrize(
    "trouble",
    [
        *(pytest.param(error(status), id=str(status)) for status in (401, 429, 500, 502, 503, 504)),
        pytest.param(Reply(302, (("location", "http://127.0.0.1:1/"),)), id="redirect"),
        pytest.param(RESET, id="reset"),
        pytest.param(Reply(200, (SSE,), (), End.CUT), id="cut after the head"),
        pytest.param(Reply(200), id="empty"),
        pytest.param(Reply(200, chunks=(b'{"choices": [',), end=End.CUT), id="half an answer"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_trouble_before_the_first_byte_goes_elsewhere(
    endpoint: Endpoint, sites: list[FakeSite], trouble: Reply, stream: bool
) -> None:
    sites[0].otherwise = trouble
    assert_answered_by_the_second(endpoint, stream)


def test_a_proxy_that_does_not_know_the_model_is_left_alone_for_a_moment(sites: list[FakeSite]) -> None:
    with serving(fleet_spec(sites, **IN_ORDER)) as endpoint:
        sites[0].plan(error(404))
        assert_answered_by_the_second(endpoint, stream=False)
        answers = [post(endpoint, chat_body(), x_rayfleet_policy="in_order")[1] for _ in range(3)]
        assert {(headers["x-rayfleet-site"], headers["x-rayfleet-attempts"]) for headers in answers} == {("west", "1")}
        wait_for(lambda: post(endpoint, chat_body(), x_rayfleet_policy="in_order")[1]["x-rayfleet-site"] == "east")


@pytest.mark.parametrize(
    "silence", [pytest.param(HANG, id="no head"), pytest.param(Reply(200, (SSE,), (), End.HANG), id="head only")]
)
def test_silence_before_the_first_byte_goes_elsewhere(
    endpoint: Endpoint, sites: list[FakeSite], silence: Reply
) -> None:
    sites[0].otherwise = silence
    assert_answered_by_the_second(endpoint, stream=True)
    assert sites[0].aborted.get(timeout=20)


def assert_answered_by_the_second(endpoint: Endpoint, stream: bool) -> None:
    status, headers, body = post(endpoint, chat_body(stream=stream), x_rayfleet_policy="in_order")
    assert (status, headers["x-rayfleet-site"], headers["x-rayfleet-attempts"]) == (200, "west", "2")
    assert b"west" in body
    assert 'rayfleet_failed_attempts_total{reason="' in metrics(endpoint)


def test_a_site_that_is_gone_costs_no_request_and_takes_traffic_when_it_is_back(
    endpoint: Endpoint, sites: list[FakeSite]
) -> None:
    def who_answers() -> str:
        return str(ask(endpoint, extra_headers={"x-rayfleet-policy": "least_loaded"}).headers["x-rayfleet-site"])

    sites[0].stop()
    assert {who_answers() for _ in range(20)} == {"west", "north"}
    sites[0].start()
    wait_for(lambda: who_answers() == "east")


def test_attempts_are_bounded(sites: list[FakeSite]) -> None:
    for site in sites:
        site.otherwise = error(503)
    with serving(fleet_spec(sites, max_attempts=2)) as endpoint:
        _, headers, _ = post(endpoint, chat_body())
    assert headers["x-rayfleet-attempts"] == "2"
    assert sum(len(site.requests) for site in sites) == 2


def test_when_none_does_better_the_engine_is_quoted(sites: list[FakeSite]) -> None:
    for site in sites:
        site.otherwise = error(429, ("retry-after", "7"))
    with serving(fleet_spec(sites)) as endpoint, pytest.raises(openai.RateLimitError, match="says 429") as caught:
        ask(endpoint)
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.response.headers["x-rayfleet-attempts"] == "3"


def test_a_proxys_page_is_not_quoted(endpoint: Endpoint, sites: list[FakeSite]) -> None:
    for site in sites:
        site.otherwise = Reply(503, (("content-type", "text/html"),), (b"<h1>503</h1>",))
    with pytest.raises(openai.InternalServerError) as caught:
        ask(endpoint)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_failed")


def test_a_site_that_refuses_our_token_is_not_quoted(endpoint: Endpoint, sites: list[FakeSite]) -> None:
    for site in sites:
        site.otherwise = error(401)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(endpoint)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_failed")


def test_silence_everywhere_is_a_timeout(endpoint: Endpoint, sites: list[FakeSite]) -> None:
    for site in sites:
        site.otherwise = HANG
    with pytest.raises(openai.InternalServerError) as caught:
        ask(endpoint)
    assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")
    assert all(site.aborted.get(timeout=20) for site in sites)


def test_the_clients_mistake_is_told_at_once(endpoint: Endpoint, sites: list[FakeSite]) -> None:
    for site in sites:
        site.otherwise = error(400)
    with pytest.raises(openai.BadRequestError, match="engine says 400") as caught:
        ask(endpoint)
    assert caught.value.response.headers["x-rayfleet-attempts"] == "1"
    assert sum(len(site.requests) for site in sites) == 1


def test_no_site_serves_the_model_now(endpoint: Endpoint) -> None:
    with pytest.raises(openai.InternalServerError, match="east: does not report lonely") as caught:
        ask(endpoint, model="lonely")
    assert (caught.value.status_code, caught.value.code) == (503, "no_site")
    assert caught.value.response.headers["retry-after"] == "1"


# After the first byte


def test_a_cut_stream_goes_on_elsewhere(endpoint: Endpoint, sites: list[FakeSite]) -> None:
    sites[0].otherwise = events("one ", "two ", done=False, end=End.CUT)
    stream = endpoint.client().chat.completions.create(
        model="chat", messages=HELLO, stream=True, extra_headers={"x-rayfleet-policy": "in_order"}
    )
    assert [chunk.choices[0].delta.content for chunk in stream] == ["one ", "two ", "hello", "from", "west"]


def test_a_cut_stream_that_cannot_go_on_ends_with_an_error_and_without_done(
    endpoint: Endpoint, sites: list[FakeSite]
) -> None:
    for site in sites:
        site.otherwise = events("one ", "two ", done=False, end=End.CUT)
    words: list[str | None] = []
    stream = endpoint.client().chat.completions.create(model="chat", messages=HELLO, stream=True, tools=TOOLS)
    with pytest.raises(openai.APIError, match=r"cut off .* it may call tools"):
        words.extend(chunk.choices[0].delta.content for chunk in stream)
    assert words == ["one ", "two "]


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(events("one", done=False, end=End.CUT), id="cut"),
        pytest.param(events("one", done=False, end=End.RESET), id="reset"),
        pytest.param(events("one", done=False, end=End.HANG), id="stalled"),
        pytest.param(events("one", done=False), id="ended without [DONE]"),
        pytest.param(Reply(200, (SSE,), (b'data: {"a":1}\n\n', b'data: {"ha'), End.CUT), id="cut in an event"),
    ],
)
def test_a_cut_stream_that_cannot_go_on_is_broken_off(endpoint: Endpoint, sites: list[FakeSite], reply: Reply) -> None:
    for site in sites:
        site.otherwise = reply
    with pytest.raises(http.client.IncompleteRead) as caught:
        post(endpoint, chat_body(stream=True, tools=TOOLS))
    *_, last, end = caught.value.partial.split(b"\n\n")
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_failed"
    assert end == b""


def test_a_body_that_every_site_cuts_is_an_error(endpoint: Endpoint, sites: list[FakeSite]) -> None:
    for site in sites:
        site.otherwise = Reply(chunks=(b'{"choices": [',), end=End.CUT)
    with pytest.raises(openai.InternalServerError, match="connection lost") as caught:
        ask(endpoint)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_failed")


def test_a_cut_body_of_which_the_client_has_a_part_is_broken_off(endpoint: Endpoint, sites: list[FakeSite]) -> None:
    for site in sites:
        site.otherwise = Reply(chunks=(b'{"choices": ["' + b"x" * 2**19,), end=End.CUT)
    with pytest.raises(http.client.IncompleteRead):
        post(endpoint, chat_body())
    with pytest.raises(openai.APIConnectionError):
        ask(endpoint)
    assert sum(len(site.requests) for site in sites) == 2


# The client


@pytest.mark.parametrize("door", ["client port", "Serve's route"])
def test_a_client_that_leaves_a_stream_stops_the_site(sites: list[FakeSite], door: str) -> None:
    sites[1].otherwise = events("one", done=False, end=End.HANG)
    with serving(fleet_spec(sites)) as patient:
        by_door = patient if door == "client port" else replace(patient, port=patient.serve_port)
        stream = by_door.client().chat.completions.create(
            model="chat", messages=HELLO, stream=True, extra_headers={"x-rayfleet-site-only": "west"}
        )
        next(iter(stream))
        stream.close()
        assert sites[1].aborted.get(timeout=20) == "/models/chat/v1/chat/completions"
        wait_for(lambda: 'outcome="client_left",site="west"} 1.0' in metrics(patient))
        assert "rayfleet_failed_attempts_total{" not in metrics(patient)


def test_a_client_that_leaves_before_the_first_byte_stops_the_site(sites: list[FakeSite]) -> None:
    sites[1].otherwise = HANG
    with serving(fleet_spec(sites)) as patient:
        with pytest.raises(openai.APITimeoutError):
            patient.client(timeout=1).chat.completions.create(
                model="chat", messages=HELLO, extra_headers={"x-rayfleet-site-only": "west"}
            )
        assert sites[1].aborted.get(timeout=20) == "/models/chat/v1/chat/completions"
        wait_for(lambda: 'outcome="client_left",site="west"} 1.0' in metrics(patient))
        wait_for(lambda: 'rayfleet_leases{model="chat",site="west"} 0.0' in metrics(patient))


def test_a_client_that_does_not_read_slows_only_its_site(sites: list[FakeSite]) -> None:
    def flood() -> Iterator[bytes]:
        event = b'data: {"x":"' + b"x" * 2**16 + b'"}\n\n'
        return iter([event] * 1024)

    sites[1].otherwise = Reply(200, (SSE,), flood())
    with serving(fleet_spec(sites)) as endpoint, socket.create_connection(("127.0.0.1", endpoint.port)) as client:
        body = chat_body(stream=True)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        head += f"x-rayfleet-site-only: west\r\ncontent-length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        wait_for(lambda: sites[1].sent > 2**20)
        for _ in range(20):
            post(endpoint, chat_body(), x_rayfleet_site_only="east")
        stuck_at = sites[1].sent
        assert stuck_at < 2**25, "half of the flood: what the gateway has not passed on, it must not have read"
    assert sites[1].aborted.get(timeout=20)
