"""A replica is ready once it has answered requests of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from clusters.spec import Task
from serve_app.warm_up import WarmUp, WarmUpFailed, requests, warm_up

Answer = Callable[[Request], Awaitable[Response]]


def plan(*tasks: Task, deadline_s: float = 30, sequences: int = 16, max_model_len: int = 1024) -> WarmUp:
    return WarmUp(
        model="m",
        tasks=tasks,
        max_model_len=max_model_len,
        sequences=sequences,
        tokens=512,
        deadline_s=deadline_s,
    )


def engine(answer: Answer) -> Starlette:
    return Starlette(routes=[Route("/{path:path}", answer, methods=["POST"])])


async def test_a_chat_model_is_asked_by_its_template_with_a_long_prompt_and_several_at_once() -> None:
    asked: list[tuple[str, int]] = []
    running, most = 0, 0

    async def answer(request: Request) -> Response:
        nonlocal running, most
        body = await request.json()
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        asked.append((request.url.path, len(body.get("prompt", ""))))
        running -= 1
        return JSONResponse({})

    await warm_up(engine(answer), plan(Task.CHAT))
    assert asked.count(("/v1/chat/completions", 0)) == 10
    assert ("/v1/completions", 512) in asked
    assert most == 8


@pytest.mark.parametrize("task", [task for task in Task if task is not Task.INFER])
def test_every_task_is_asked_for(task: Task) -> None:
    assert list(requests(plan(task)))


@pytest.mark.parametrize("max_model_len", [16, 64, 4096])
def test_no_request_is_longer_than_the_model_takes(max_model_len: int) -> None:
    for asked in requests(plan(Task.COMPLETIONS, Task.CHAT, max_model_len=max_model_len)):
        prompt = asked.body.get("prompt", "")
        if isinstance(prompt, list):
            assert 1 <= len(prompt) + asked.body["max_tokens"] <= max_model_len


async def test_an_engine_that_refuses_is_not_ready() -> None:
    async def answer(request: Request) -> Response:
        del request
        return PlainTextResponse("no chat template", 400)

    with pytest.raises(WarmUpFailed, match="m answers its own first request to /v1/chat/completions with 400: no chat"):
        await warm_up(engine(answer), plan(Task.CHAT))


async def test_a_model_that_writes_is_asked_for_json_by_a_schema() -> None:
    for task in (Task.CHAT, Task.COMPLETIONS):
        (asked,) = [asked for asked in requests(plan(task)) if "response_format" in asked.body]
        assert asked.body["response_format"]["type"] == "json_schema"
        assert asked.body["top_p"] < 1
    assert not any("response_format" in asked.body for asked in requests(plan(Task.EMBEDDINGS)))


@pytest.mark.parametrize(("status", "ready"), [(200, True), (400, True), (500, False)])
async def test_an_engine_without_grammars_may_say_so(status: int, ready: bool) -> None:
    async def answer(request: Request) -> Response:
        asked_for_json = "response_format" in await request.json()
        return PlainTextResponse("no grammars", status if asked_for_json else 200)

    with nullcontext() if ready else pytest.raises(WarmUpFailed, match="no grammars"):
        await warm_up(engine(answer), plan(Task.CHAT))


@pytest.mark.parametrize("before", ["", 'data: {"choices": []}\n\n'])
async def test_an_error_in_a_stream_is_one(before: str) -> None:
    async def answer(request: Request) -> Response:
        del request
        return PlainTextResponse(before + 'data: {"error": {"message": "out of memory"}}\n\ndata: [DONE]\n\n')

    with pytest.raises(WarmUpFailed, match="out of memory"):
        await warm_up(engine(answer), plan(Task.CHAT))


async def test_an_engine_that_crashes_is_not_ready() -> None:
    async def answer(request: Request) -> Response:
        raise ValueError(request.url.path)

    with pytest.raises(WarmUpFailed, match="/v1/embeddings with 500"):
        await warm_up(engine(answer), plan(Task.EMBEDDINGS))


async def test_an_engine_that_never_answers_is_given_up() -> None:
    async def answer(request: Request) -> Response:
        del request
        await asyncio.Event().wait()
        return Response()

    with pytest.raises(WarmUpFailed, match=r"within 0\.1 s.*warm_up_s"):
        await warm_up(engine(answer), plan(Task.CLASSIFY, deadline_s=0.1))
