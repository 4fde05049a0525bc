"""The same requests at the real engine, and in the simulator's."""

import asyncio
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoscaling.simulate.calibration import Answer
from autoscaling.simulate.engine import Engine
from autoscaling.simulate.engine import Sequence as Running
from autoscaling.simulate.engine_model import EngineModel
from autoscaling.simulate.traces import Request
from bench.simulator.engine import BATCHING
from bench.simulator.workload import Texts
from serve_app.cli.probe import Probe


@dataclass(frozen=True, slots=True)
class Served:
    """Seconds since the replay began."""

    sent: float
    first: float
    last: float
    output_tokens: int

    @property
    def ttft_s(self) -> float:
        return self.first - self.sent

    @property
    def tpot_s(self) -> float | None:
        return (self.last - self.first) / (self.output_tokens - 1) if self.output_tokens > 1 else None


async def at_engine(
    probe: Probe, requests: Sequence[Request], texts: Texts, block_tokens: int
) -> tuple[list[Served], list[Request]]:
    """What it did, and what it was asked: with the moments and the tokens that the requests really had. Raises
    FleetUnreachable and FleetRefused."""
    written = [texts.write(each.prompt_tokens) for each in requests]
    began = time.monotonic()

    async def one(request: Request, text: str) -> Answer:
        await asyncio.sleep(began + request.at - time.monotonic())
        return await probe.ask(text, request.output_tokens)

    answers = await asyncio.gather(*(one(each, text) for each, (text, _) in zip(requests, written, strict=True)))
    served = [Served(each.sent - began, each.first - began, each.last - began, each.output_tokens) for each in answers]
    asked = [
        Request(each.sent - began, each.prompt_tokens, each.output_tokens, blocks=blocks, block_tokens=block_tokens)
        for each, (_, blocks) in zip(answers, written, strict=True)
    ]
    return served, asked


def simulated(model: EngineModel, requests: Iterable[Request], block_tokens: int) -> list[Served]:
    """In order of arrival."""
    engine = Engine(model, BATCHING, block_tokens)
    waiting = sorted(requests, key=lambda each: each.at, reverse=True)
    running: dict[Running, Request] = {}
    first: dict[Running, float] = {}
    served = []
    while waiting or engine.next_at < math.inf:
        arrives = waiting[-1].at + model.request_s if waiting else math.inf
        if arrives <= engine.next_at:
            request = waiting.pop()
            sequence = Running(request.prompt_tokens, request.output_tokens, request.blocks)
            running[sequence] = request
            engine.add(sequence, arrives)
            continue
        now = engine.next_at
        begun, finished = engine.advance()
        first |= dict.fromkeys(begun, now)
        for sequence in finished:
            request = running.pop(sequence)
            served.append(Served(request.at, first.pop(sequence), now, request.output_tokens))
    return sorted(served, key=lambda each: each.sent)
