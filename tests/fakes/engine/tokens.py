"""The engine's vocabulary: words that may be split in several ways, and characters that no single token holds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SPECIALS = ("<|eos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>")
EOS = 0
END = SPECIALS.index("<|end|>")
CHARACTERS = ("ü", "é", "ß", "日", "語", "🚀", "🌍")
SPEECH = (
    "a all and any as at be bold but by calm can cloud cold core day dawn deep each early east fleet flow for from "
    "gate good great green head high home in into is it keep lake late light long moon more near new night north "
    "not of old on one open or over path plain quick rain river road run sea ship site sky slow small snow south "
    "star still stone sun that the then there time to token train tree two under up valley warm water we west "
    "when while wide wind wood word yet you"
)
WORDS = tuple(f" {word}".encode() for word in SPEECH.split())
"""What a canonical model says. No word is the beginning of two others run together, so its text splits in one way."""
PIECES = (b"ing", b"er", b"s", b"ed", b"ly", b",", b".", b"\n")
JOINED = tuple(word + piece for word in WORDS[::3] for piece in PIECES[:5])
"""The model says " run" and "ing", the tokenizer reads " running" as one: text alone doesn't tell the tokens."""
HALVES = tuple(dict.fromkeys(b" " + character.encode()[:2] for character in CHARACTERS if len(character.encode()) > 2))

FIRST_BYTE = len(SPECIALS)
FIRST_WORD = FIRST_BYTE + 256
FIRST_PIECE = FIRST_WORD + len(WORDS)
FIRST_JOINED = FIRST_PIECE + len(PIECES)
FIRST_HALF = FIRST_JOINED + len(JOINED)
_BYTES = (*(b"" for _ in SPECIALS), *(bytes([value]) for value in range(256)), *WORDS, *PIECES, *JOINED, *HALVES)
VOCABULARY = len(_BYTES)
_IDS = {text: token for token, text in reversed(tuple(enumerate(_BYTES))) if text}
_LONGEST = max(map(len, _BYTES))


def encode(text: str) -> tuple[int, ...]:
    """The longest tokens that fit, from the left."""
    raw, at, tokens = text.encode("utf-8", "replace"), 0, []
    while at < len(raw):
        length = next(n for n in range(min(_LONGEST, len(raw) - at), 0, -1) if raw[at : at + n] in _IDS)
        tokens.append(_IDS[raw[at : at + length]])
        at += length
    return tuple(tokens)


def raw_text(tokens: Iterable[int]) -> bytes:
    """Special tokens have no text."""
    return b"".join(_BYTES[token] for token in tokens)


def decode(tokens: Iterable[int]) -> str:
    return raw_text(tokens).decode("utf-8", "replace")


def continuations(tokens: Sequence[int]) -> list[int]:
    """The tokens that may follow half a character; empty where none is begun."""
    raw = raw_text(tokens[-4:])
    for begun in (3, 2, 1):
        longer = (character for character in map(str.encode, CHARACTERS) if len(character) > begun)
        following = {character[begun] for character in longer if raw.endswith(character[:begun])}
        if following:
            return [FIRST_BYTE + byte for byte in sorted(following)]
    return []


class DecodeStream:
    """Text as tokens come, as the `tokenizers` library's stream of the same name gives it to vLLM.

    Its flaw too: where the prompt ends within a character, the first text is the whole prompt's.
    """

    def __init__(self, prompt: Sequence[int]):
        self._tokens = list(prompt)
        self._prefix = ""
        self._prefix_tokens = 0

    def step(self, token: int) -> str:
        """What this token adds; empty while a character is incomplete."""
        if not self._prefix and self._tokens:
            prefix = decode(self._tokens)
            if not prefix.endswith("�"):
                self._prefix, self._prefix_tokens = prefix, len(self._tokens)
        self._tokens.append(token)
        text = decode(self._tokens)
        if len(text) <= len(self._prefix) or text.endswith("�"):
            return ""
        added = text[len(self._prefix) :]
        kept = len(self._tokens) - self._prefix_tokens
        self._tokens = self._tokens[self._prefix_tokens :]
        self._prefix, self._prefix_tokens = decode(self._tokens), kept
        return added


ROLES: Mapping[str, int] = {role: SPECIALS.index(f"<|{role}|>") for role in ("system", "user", "assistant", "tool")}


def chat_tokens(messages: Sequence[Mapping[str, Any]], *, open_answer: bool, open_last: bool) -> tuple[int, ...]:
    """The chat template: `open_answer` asks for an answer, `open_last` leaves the last message open instead."""
    tokens: list[int] = []
    for message in messages:
        tokens += (ROLES.get(message["role"], ROLES["system"]), *encode(message_text(message)), END)
    if open_last:
        return tuple(tokens[:-1])
    return (*tokens, ROLES["assistant"]) if open_answer else tuple(tokens)


def message_text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)
