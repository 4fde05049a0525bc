"""What the engine answers in one step: tokens, vectors, scores, transcripts, models."""

import base64
import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from tests.fakes.engine.answers import CREATED, Whole, dump, full_usage
from tests.fakes.engine.asked import Circumstances, Refused, check_model
from tests.fakes.engine.tokens import chat_tokens, decode, encode

DIMENSIONS = 8


def tokenize(fields: Mapping[str, Any], circumstances: Circumstances) -> Whole:
    """Of a prompt, or of a chat as its template renders it."""
    check_model(fields, circumstances.models)
    if "messages" in fields:
        open_last = bool(fields.get("continue_final_message"))
        open_answer = bool(fields.get("add_generation_prompt", True))
        tokens = chat_tokens(fields["messages"], open_answer=open_answer, open_last=open_last)
    else:
        tokens = encode(fields["prompt"])
    texts = [decode([token]) for token in tokens] if fields.get("return_token_strs") else None
    limit = circumstances.behaviour.max_model_len
    return Whole(dump({"count": len(tokens), "max_model_len": limit, "tokens": tokens, "token_strs": texts}))


def detokenize(fields: Mapping[str, Any], circumstances: Circumstances) -> Whole:
    check_model(fields, circumstances.models)
    return Whole(dump({"prompt": decode(fields["tokens"])}))


def embed(fields: Mapping[str, Any], circumstances: Circumstances) -> Whole:
    texts = _texts(fields.get("input"), "input")
    as_text = fields.get("encoding_format") == "base64"
    body = {
        "id": f"embd-{circumstances.request_id}",
        "object": "list",
        "created": CREATED,
        "model": check_model(fields, circumstances.models),
        "data": [
            {"index": index, "object": "embedding", "embedding": _base64(_vector(text)) if as_text else _vector(text)}
            for index, text in enumerate(texts)
        ],
        "usage": _pooling_usage(texts),
    }
    return Whole(dump(body))


def score(fields: Mapping[str, Any], circumstances: Circumstances) -> Whole:
    left = _texts(fields.get("queries", fields.get("data_1", fields.get("text_1"))), "queries")
    right = _texts(fields.get("documents", fields.get("data_2", fields.get("text_2"))), "documents")
    pairs = list(zip(left * len(right) if len(left) == 1 else left, right, strict=True))
    body = {
        "id": f"score-{circumstances.request_id}",
        "object": "list",
        "created": CREATED,
        "model": check_model(fields, circumstances.models),
        "data": [{"index": at, "object": "score", "score": _likeness(*pair)} for at, pair in enumerate(pairs)],
        "usage": _pooling_usage([text for pair in pairs for text in pair]),
    }
    return Whole(dump(body))


def rerank(fields: Mapping[str, Any], circumstances: Circumstances) -> Whole:
    (query,), documents = _texts(fields.get("query"), "query"), _texts(fields.get("documents"), "documents")
    ranking = sorted(((_likeness(query, text), at) for at, text in enumerate(documents)), reverse=True)
    results = [
        {"index": at, "document": {"text": documents[at], "multi_modal": None}, "relevance_score": likeness}
        for likeness, at in ranking
    ]
    usage = _pooling_usage([query, *documents])
    body = {
        "id": f"score-{circumstances.request_id}",
        "model": check_model(fields, circumstances.models),
        "usage": {name: usage[name] for name in ("prompt_tokens", "total_tokens")},
        "results": results[: fields.get("top_n") or None],
    }
    return Whole(dump(body))


def transcribe(content_type: str, body: bytes, circumstances: Circumstances) -> Whole:
    """Of multipart form data. The words follow from the sound's bytes; a second is 16,000 of them."""
    form = _form(content_type, body)
    if "file" not in form:
        raise Refused("1 validation error:\n  file: Field required", kind="Bad Request", parameter="body.file")
    check_model({"model": form.get("model", b"").decode()}, circumstances.models)
    sound = form["file"]
    seconds = math.ceil(len(sound) / 16_000)
    text = f"{len(sound)} bytes {hashlib.sha256(sound).hexdigest()[:8]}"
    return Whole(dump({"text": text, "usage": {"type": "duration", "seconds": seconds}}))


def _form(content_type: str, body: bytes) -> dict[str, bytes]:
    """The parts by name."""
    message = BytesParser(policy=HTTP).parsebytes(f"content-type: {content_type}\r\n\r\n".encode() + body)
    parts = {str(part.get_param("name", header="content-disposition")): part for part in message.iter_parts()}
    return {name: bytes(part.get_payload(decode=True)) for name, part in parts.items()}


def models(names: Sequence[str], max_model_len: int) -> Whole:
    cards = [
        {
            "id": name,
            "object": "model",
            "created": CREATED,
            "owned_by": "vllm",
            "root": name,
            "parent": None,
            "max_model_len": max_model_len,
        }
        for name in names
    ]
    return Whole(dump({"object": "list", "data": cards}))


def _texts(value: Any, name: str) -> list[str]:
    if not value:
        raise Refused(f"1 validation error:\n  {name}: Field required", kind="Bad Request", parameter=f"body.{name}")
    if isinstance(value, list):
        return [str(item) for item in value]
    return [str(value)]


def _vector(text: str) -> list[float]:
    digest = hashlib.blake2b(text.encode(), digest_size=DIMENSIONS).digest()
    length = math.sqrt(sum((byte - 127.5) ** 2 for byte in digest))
    return [(byte - 127.5) / length for byte in digest]


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _likeness(left: str, right: str) -> float:
    return sum(a * b for a, b in zip(_vector(left), _vector(right), strict=True))


def _pooling_usage(texts: Sequence[str]) -> dict[str, Any]:
    return full_usage(sum(len(encode(text)) for text in texts), 0)
