"""Asks one placement, and notes when each token came."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp

from autoscaling.simulate.calibration import Answer
from serve_app.admission import ONLY_SITE
from serve_app.cli.endpoint import Endpoint, FleetRefused, FleetUnreachable

TIMEOUT_S = 300.0
MAX_ERROR_BYTES = 2**16


class Probe:
    """Open while the `with` lasts. Asks through an ingress, or a server that speaks as one. Every method raises
    FleetUnreachable and FleetRefused."""

    def __init__(self, endpoint: Endpoint, model: str, site: str):
        self._url = f"{endpoint.url}/v1/chat/completions"
        self._headers = {"Authorization": f"Bearer {endpoint.key}", ONLY_SITE.decode(): site}
        self._model = model

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def batch(self, prompts: Sequence[str], tokens: int) -> list[Answer]:
        """All at once, each with an answer of so many tokens."""
        return await asyncio.gather(*(self.ask(prompt, tokens) for prompt in prompts))

    async def ask(self, prompt: str, tokens: int) -> Answer:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            "min_tokens": tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        sent = time.monotonic()
        times: list[float] = []
        usage: dict[str, Any] = {}
        try:
            async with self._session.post(self._url, json=body) as answer:
                if answer.status != 200:
                    told = (await answer.content.read(MAX_ERROR_BYTES)).decode(errors="replace")
                    raise FleetRefused(f"{self._url}, status {answer.status}: {told}")
                async for line in answer.content:
                    if line.startswith(b"data: {"):
                        event = json.loads(line[6:])
                        if _has_tokens(event):
                            times.append(time.monotonic())
                        usage = event.get("usage") or usage
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FleetUnreachable(f"{self._url} broke off its answer: {str(error) or type(error).__name__}") from error
        if not times or not usage:
            raise FleetUnreachable(f"{self._url} answered without tokens or without their count")
        return Answer(sent, tuple(times), int(usage["prompt_tokens"]), int(usage["completion_tokens"]))


def _has_tokens(event: Mapping[str, Any]) -> bool:
    """The first event may only name the role."""
    deltas = [choice.get("delta", {}) for choice in event.get("choices", ())]
    return any("role" not in delta or delta.get("content") for delta in deltas)
