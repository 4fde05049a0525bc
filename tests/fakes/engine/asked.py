"""What a request asks the engine for, and why it is refused: the checks and the words are vLLM's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from tests.fakes.engine import structured
from tests.fakes.engine.faults import Behaviour, End, Fault
from tests.fakes.engine.generation import Sampling
from tests.fakes.engine.tokens import VOCABULARY, chat_tokens, encode

DEFAULT_COMPLETION_TOKENS = 16


class Refused(Exception):
    """The engine's error: message, status, type, parameter."""

    def __init__(self, message: str, status: int = 400, kind: str = "BadRequestError", parameter: str | None = None):
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.parameter = parameter


class StreamOptions(BaseModel):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Wanted(BaseModel):
    """The fields that both kinds of request have, with vLLM's types and tighter limits."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=0)
    max_completion_tokens: int | None = Field(None, ge=1)
    min_tokens: int = Field(0, ge=0)
    ignore_eos: bool = False
    stop: str | list[Annotated[str, Field(min_length=1)]] | None = None
    stop_token_ids: tuple[int, ...] | None = None
    include_stop_str_in_output: bool = False
    temperature: float | None = Field(None, ge=0)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int | None = Field(None, ge=1, le=16)
    logprobs: bool | int | None = Field(None, ge=0, le=20)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    return_token_ids: bool | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        stop = self.stop or ()
        return (stop,) if isinstance(stop, str) else tuple(stop)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for text, chat or completion."""

    answer_id: str
    model: str
    prompts: tuple[tuple[int, ...], ...]
    sampling: Sampling
    role: str = "assistant"
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    logprobs: int | None = None
    """Alternatives to tell of each token; None: no logprobs at all."""
    return_token_ids: bool = False
    tool: str | None = None
    """The tool that must be called."""
    tool_required: bool = False
    """Some tool must be, so that the finish reason is `tool_calls`."""

    def of_choice(self, index: int) -> Sampling:
        seed = self.sampling.seed
        return self.sampling if seed is None else replace(self.sampling, seed=seed + index)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What an answer depends on beside the request's body."""

    request_id: str
    models: tuple[str, ...]
    behaviour: Behaviour
    fault: Fault
    chance: int
    """Seeds what was sent without a seed."""
    fingerprint: str

    @property
    def filter_after(self) -> int | None:
        return (self.fault.after or 0) if self.fault.end is End.FILTER else None


def json_object(body: bytes) -> dict[str, Any]:
    """Raises Refused."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(f"1 validation error:\n  JSON decode error: {error}", kind="Bad Request") from error
    if not isinstance(fields, dict):
        raise Refused("1 validation error:\n  Input should be a valid dictionary", kind="Bad Request")
    return fields


def check_model(fields: Mapping[str, Any], models: Sequence[str]) -> str:
    """Raises Refused."""
    model = fields.get("model") or models[0]
    if model not in models:
        raise Refused(f"The model `{model}` does not exist.", 404, "NotFoundError", "model")
    return str(model)


def ask_chat(fields: Mapping[str, Any], circumstances: Circumstances) -> Asked:
    """Raises Refused."""
    messages = _given(fields, "messages", list)
    open_last = bool(fields.get("continue_final_message"))
    open_answer = bool(fields.get("add_generation_prompt", True))
    if open_last and open_answer:
        raise Refused("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    if open_last and circumstances.behaviour.refuses_continuation:
        raise Refused("This model does not support assistant message prefill.")
    wanted = _wanted(fields)
    prompt = chat_tokens(messages, open_answer=open_answer, open_last=open_last)
    asked = _ask(fields, wanted, (prompt,), wanted.max_completion_tokens or wanted.max_tokens, circumstances)
    tools = structured.tools(fields)
    return replace(
        asked,
        answer_id=f"chatcmpl-{circumstances.request_id}",
        role="assistant" if open_answer else str(messages[-1]["role"]),
        logprobs=(wanted.top_logprobs or 0) if wanted.logprobs else None,
        sampling=replace(asked.sampling, script=structured.script(fields, tools)),
        tool=str(tools[0]["name"]) if tools else None,
        tool_required=fields.get("tool_choice") == "required",
    )


def ask_completion(fields: Mapping[str, Any], circumstances: Circumstances) -> Asked:
    """Raises Refused."""
    given = _given(fields, "prompt", str, list)
    if circumstances.behaviour.refuses_continuation and not isinstance(
        given if isinstance(given, str) else given[0], str
    ):
        raise Refused("Prompts of token ids are not accepted.", parameter="prompt")
    wanted = _wanted(fields)
    max_tokens = DEFAULT_COMPLETION_TOKENS if wanted.max_tokens is None else wanted.max_tokens
    asked = _ask(fields, wanted, _prompts(given), max_tokens, circumstances)
    logprobs = None if wanted.logprobs is None else int(wanted.logprobs)
    script = structured.script(fields, ())
    return replace(asked, logprobs=logprobs, sampling=replace(asked.sampling, script=script))


def _wanted(fields: Mapping[str, Any]) -> Wanted:
    try:
        wanted = Wanted.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("body", *first["loc"])))
        raise Refused(f"1 validation error:\n  {first['msg']}", kind="Bad Request", parameter=place) from error
    if wanted.stream_options and not wanted.stream:
        raise Refused("Stream options can only be defined when `stream=True`.", parameter="stream_options")
    return wanted


def _ask(
    fields: Mapping[str, Any],
    wanted: Wanted,
    prompts: tuple[tuple[int, ...], ...],
    max_tokens: int | None,
    circumstances: Circumstances,
) -> Asked:
    behaviour = circumstances.behaviour
    for prompt in prompts:
        _check_length(len(prompt), max_tokens or 0, behaviour.max_model_len)
    room = behaviour.max_model_len - max(map(len, prompts))
    greedy = wanted.temperature == 0
    seed = circumstances.chance if wanted.seed is None else wanted.seed
    options = wanted.stream_options or StreamOptions()
    return Asked(
        answer_id=f"cmpl-{circumstances.request_id}",
        model=check_model(fields, circumstances.models),
        prompts=prompts,
        sampling=Sampling(
            max_tokens=room if max_tokens is None else max(max_tokens, 1),
            min_tokens=wanted.min_tokens,
            ignore_eos=wanted.ignore_eos,
            stop=wanted.stops,
            stop_token_ids=wanted.stop_token_ids or (),
            include_stop=wanted.include_stop_str_in_output,
            seed=None if greedy else seed,
            filter_after=circumstances.filter_after,
            canonical=behaviour.canonical,
            tokens_per_step=behaviour.tokens_per_event,
        ),
        n=wanted.n or 1,
        stream=bool(wanted.stream),
        include_usage=bool(options.include_usage),
        continuous_usage=bool(options.include_usage and options.continuous_usage_stats),
        return_token_ids=bool(wanted.return_token_ids),
    )


def _given(fields: Mapping[str, Any], name: str, *types: type) -> Any:
    value = fields.get(name)
    if not isinstance(value, types) or not value:
        raise Refused(
            f"1 validation error:\n  {name}: Input should be given", kind="Bad Request", parameter=f"body.{name}"
        )
    return value


def _prompts(prompt: str | list[Any]) -> tuple[tuple[int, ...], ...]:
    if isinstance(prompt, str):
        return (encode(prompt),)
    if isinstance(prompt[0], int):
        return (_known(prompt),)
    return tuple(encode(item) if isinstance(item, str) else _known(item) for item in prompt)


def _known(tokens: Sequence[int]) -> tuple[int, ...]:
    if strange := [token for token in tokens if not 0 <= token < VOCABULARY]:
        raise Refused(f"Token id {strange[0]} is out of vocabulary", parameter="prompt")
    return tuple(tokens)


def _check_length(prompt: int, output: int, limit: int) -> None:
    if prompt > limit - output:
        raise Refused(
            f"This model's maximum context length is {limit} tokens. However, you requested {output} output tokens and "
            f"your prompt contains {prompt} input tokens, for a total of {prompt + output} tokens. Please reduce the "
            "length of the input prompt or the number of requested output tokens.",
            parameter="input_tokens",
        )
    if prompt == limit:
        raise Refused(
            f"The decoder prompt (length {prompt}) plus the number of requested output tokens (at least 1) is longer "
            f"than the maximum model length of {limit}. Make sure that `max_model_len` is no smaller than the number "
            "of text tokens (prompt + requested output tokens)."
        )
