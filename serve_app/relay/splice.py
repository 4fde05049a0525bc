"""The events of a resumed stream, written as the interrupted stream would have gone on."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from serve_app.relay.journal import Delivered
from serve_app.relay.resume import CHAT
from serve_app.relay.sse import DONE

MOST_OF_A_STOP = 1024
"""Characters of the delivered text in which a stop string may begin."""


class Unreadable(Exception):
    """The resumed stream is not what it should be."""


class Splice:
    """Same id, same model, one usage. Text that ends in a stop string over the seam is cut there."""

    def __init__(
        self, route: str, fields: Mapping[str, Any], delivered: Delivered, held: str = "", known: Sequence[int] = ()
    ):
        """`held` is text at the seam that the client lacks, `known` are ids behind it that the client has."""
        self._chat = route == CHAT
        options = fields.get("stream_options") or {}
        self._usage = bool(options.get("include_usage"))
        self._usage_always = self._usage and bool(options.get("continuous_usage_stats"))
        self._stops = _stops(fields.get("stop"))
        self._stop_stays = bool(fields.get("include_stop_str_in_output"))
        self._delivered = delivered
        self._had = delivered.tokens
        self._prompt = len(delivered.prompt_ids or ())
        # Where a stop string is shown with the rest, its beginning may have been delivered.
        shown = delivered.text[-MOST_OF_A_STOP:] if self._stop_stays and self._stops else ""
        self._seam = shown + held
        self._shown = len(shown)
        self._beyond = ""
        self.known = list(known)
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
        if not text and finish is None and delta.get("role"):
            return  # the client has it
        ids = self._unknown(ids)
        text, stop = self._over_the_seam(text, finish is not None)
        if stop is not None:
            finish = "stop"
        yield self._written(text, ids, finish, stop if stop is not None else choice.get("stop_reason"))
        if stop is not None:
            yield from self._end()

    def _over_the_seam(self, text: str, last: bool) -> tuple[str, str | None]:
        """What was held back at the seam goes before the text, as soon as no stop string can begin in it."""
        if not self._seam:
            return text, None
        self._beyond += text
        whole = self._seam + self._beyond
        for stop in self._stops:
            at = whole.find(stop)
            if 0 <= at < len(self._seam):
                return whole[self._shown : at + (len(stop) if self._stop_stays else 0)], stop
        if not last and len(self._beyond) < max(map(len, self._stops), default=1) - 1:
            return "", None
        self._seam = ""
        return whole[self._shown :], None

    def _unknown(self, ids: Sequence[int] | None) -> Sequence[int] | None:
        """Those that the client lacks. Raises Unreadable where others came in the place of those that it has."""
        while ids and self.known:
            if ids[0] != self.known[0]:
                raise Unreadable("it went on differently within a character")
            self._delivered.ids.append(self.known.pop(0))
            ids = ids[1:]
        return ids

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
