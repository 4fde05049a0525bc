"""The events of a resumed stream, written as the interrupted stream would have gone on."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from serve_app.relay.journal import Delivered
from serve_app.relay.resume import CHAT
from serve_app.relay.sse import DONE


class Unreadable(Exception):
    """The resumed stream is not what it should be."""


class Splice:
    """Same id, same model, one usage. Text that ends in a stop string over the seam is cut there."""

    def __init__(self, route: str, fields: Mapping[str, Any], delivered: Delivered, held: str = ""):
        self._chat = route == CHAT
        options = fields.get("stream_options") or {}
        self._usage = bool(options.get("include_usage"))
        self._usage_always = self._usage and bool(options.get("continuous_usage_stats"))
        self._stops = _stops(fields.get("stop"))
        self._stop_stays = bool(fields.get("include_stop_str_in_output"))
        self._delivered = delivered
        self._had = delivered.tokens
        self._prompt = len(delivered.prompt_ids or ())
        self._held = held
        self.finished = False

    def feed(self, events: bytes) -> Iterator[bytes]:
        """Events for the client's journal: with token ids. Raises Unreadable."""
        for event in events.replace(b"\r\n", b"\n").split(b"\n\n"):
            if not event.startswith(b"data:") or self.finished:
                continue
            data = event[5:].strip()
            if data == b"[DONE]":
                yield from self._end()
            else:
                yield from self._chunk(_parsed(data))

    def end(self) -> Iterator[bytes]:
        """The last events, where the interrupted stream lacked only these."""
        return self._end()

    def _chunk(self, chunk: dict[str, Any]) -> Iterator[bytes]:
        choice = next(iter(chunk.get("choices") or ()), None)
        if choice is None:
            self._learn_usage(chunk.get("usage"))
            return
        delta = choice.get("delta") or {}
        text = (delta.get("content") if "delta" in choice else choice.get("text")) or ""
        ids = choice.get("token_ids")
        finish = choice.get("finish_reason")
        if not text and not ids and finish is None:
            return  # the role, which the client has
        text, stop = self._over_the_seam(text, finish is not None)
        if stop is not None:
            finish = "stop"
        yield self._written(text, ids, finish, stop if stop is not None else choice.get("stop_reason"))
        if stop is not None:
            yield from self._end()

    def _over_the_seam(self, text: str, last: bool) -> tuple[str, str | None]:
        """What was held back at the seam goes before the text, as soon as no stop string can begin in it."""
        if not self._held:
            return text, None
        text = self._held + text
        for stop in self._stops:
            at = text.find(stop)
            if 0 <= at < len(self._held):
                self._held = ""
                return text[: at + (len(stop) if self._stop_stays else 0)], stop
        longest = max(map(len, self._stops), default=0)
        if last or len(text) - len(self._held) >= longest - 1:
            self._held = ""
            return text, None
        self._held = text
        return "", None

    def _written(self, text: str, ids: Sequence[int] | None, finish: str | None, stop_reason: Any) -> bytes:
        choice: dict[str, Any] = {"index": 0}
        if self._chat:
            choice |= {"delta": {"content": text}, "logprobs": None, "finish_reason": finish}
            choice |= {"stop_reason": stop_reason} if finish is not None else {}
        else:
            choice |= {"text": text, "logprobs": None, "finish_reason": finish, "stop_reason": stop_reason}
            choice |= {"prompt_token_ids": None}
        choice["token_ids"] = ids
        body = self._frame([choice])
        if self._usage_always:
            body["usage"] = self._counted(len(ids or ()))
        return _event(body)

    def _end(self) -> Iterator[bytes]:
        self.finished = True
        if self._usage and not self._delivered.usage_sent:
            yield _event(self._frame([]) | {"usage": self._counted(0)})
        yield DONE + b"\n\n"

    def _frame(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        of = self._delivered
        return {"id": of.id, "object": of.object, "created": of.created, "model": of.model, "choices": choices}

    def _learn_usage(self, usage: Any) -> None:
        """What the interrupted engine never told of the prompt; the resumed one counted our answer to it."""
        if not self._prompt and isinstance(usage, dict):
            self._prompt = max(0, usage.get("prompt_tokens", 0) - self._had)

    def _counted(self, more: int) -> dict[str, int]:
        """Usage of the whole answer, as if there had been one run. `more` are tokens that the journal lacks yet."""
        written = self._delivered.tokens + more
        return {"prompt_tokens": self._prompt, "total_tokens": self._prompt + written, "completion_tokens": written}


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError as error:
        raise Unreadable("a malformed event") from error
    if not isinstance(chunk, dict) or "error" in chunk:
        raise Unreadable("the engine reported an error")
    return chunk


def _stops(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(each for each in given or () if each)


def _event(body: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n\n"
