"""`rayfleet calibrate`: measures a real placement through its endpoint, and fits the simulator's engine model to it."""

import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
from rich.table import Table

from autoscaling.simulate.calibration import Fit, Measured, fit
from autoscaling.simulate.engine_model import save_model
from serve_app.admission import ONLY_SITE
from serve_app.cli.endpoint import (
    DEFAULT_DIR,
    DirOption,
    Endpoint,
    EndpointOption,
    FleetRefused,
    FleetUnreachable,
)
from serve_app.cli.steps import Report, Steps, console

WORDS = ("river", "stone", "window", "garden", "letter", "morning", "bridge", "paper", "silver", "winter")
REPEATS = 3
MOST_BATCH = 256
MAX_ERROR_BYTES = 2**16
TIMEOUT_S = 300.0


def calibrate(
    model: Annotated[str, typer.Argument(help="That is served there.")],
    site: Annotated[str, typer.Option(help="Its site. Nothing else should use the placement meanwhile.")],
    kv_tokens: Annotated[int, typer.Option(min=1, help="Tokens of its KV cache, as vLLM logs them at its start.")],
    out: Annotated[Path, typer.Option(help="File for the engine model.")] = Path("engine.json"),
    prompts: Annotated[str, typer.Option(help="Words of the prompts; each should fit one step.")] = "16,64,256,512",
    batches: Annotated[str, typer.Option(help="Requests at once.")] = "1,2,4,8,16",
    tokens: Annotated[int, typer.Option(min=2, max=4096, help="Of each answer.")] = 64,
    endpoint: EndpointOption = None,
    directory: DirOption = DEFAULT_DIR,
) -> None:
    """Measure a placement with one replica and write its engine model for `rayfleet simulate`."""
    lengths, sizes = _numbers("--prompts", prompts, 2**20), _numbers("--batches", batches, MOST_BATCH)
    probe = Probe(Endpoint.find(endpoint, directory), model, site, tokens)
    with Steps(console()) as steps:
        with steps.step("warm up"):
            probe.batch(1, min(lengths))
        with steps.step("single requests") as report:
            measured = [one for words in lengths for one in _told(probe, 1, words, report)]
        with steps.step("batches") as report:
            measured += [one for size in sizes if size > 1 for one in _told(probe, size, min(lengths), report)]
    source = f"measured at {site} on {time.strftime('%Y-%m-%d')}: {model}, {len(measured)} answers"
    made = fit(measured, kv_tokens, source)
    save_model(made.model, out)
    console().print(_table(made, out))


class Probe:
    """Asks one placement. Each prompt is new, so that no cache helps."""

    def __init__(self, endpoint: Endpoint, model: str, site: str, tokens: int):
        self._endpoint = endpoint
        self._model = model
        self._site = site
        self._tokens = tokens
        self._rng = random.Random()

    def batch(self, size: int, words: int) -> list[Measured]:
        """So many requests at once. Raises FleetUnreachable and FleetRefused."""
        texts = [" ".join(self._rng.choices(WORDS, k=words)) for _ in range(size)]
        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(lambda text: self._ask(text, size), texts))

    def _ask(self, text: str, batch: int) -> Measured:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": self._tokens,
            "min_tokens": self._tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        began = time.monotonic()
        times = []
        usage: dict[str, Any] = {}
        for event in self._events(json.dumps(body).encode()):
            if event.get("choices"):
                times.append(time.monotonic())
            usage = event.get("usage") or usage
        if not times or not usage:
            raise FleetUnreachable(f"{self._site} answered without tokens or without their count")
        prompt, output = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        tpot_s = (times[-1] - times[0]) / (output - 1) if output > 1 else None
        return Measured(batch, prompt, output, times[0] - began, tpot_s)

    def _events(self, body: bytes) -> Iterator[dict[str, Any]]:
        headers = {
            "Authorization": f"Bearer {self._endpoint.key}",
            "Content-Type": "application/json",
            ONLY_SITE.decode(): self._site,
        }
        try:
            request = urllib.request.Request(f"{self._endpoint.url}/v1/chat/completions", body, headers)  # noqa: S310
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
                for line in answer:
                    if line.startswith(b"data: {"):
                        yield json.loads(line[6:])
        except urllib.error.HTTPError as error:
            with error:
                told = error.read(MAX_ERROR_BYTES).decode(errors="replace")
            raise FleetRefused(f"{self._endpoint.url}, status {error.code}: {told}") from error
        except (OSError, HTTPException, ValueError) as error:
            raise FleetUnreachable(f"{self._endpoint.url} broke off its answer: {error}") from error


def _told(probe: Probe, size: int, words: int, report: Report) -> list[Measured]:
    measured = [one for _ in range(REPEATS) for one in probe.batch(size, words)]
    report(f"{size} at once, {words} words: {fmean(one.ttft_s for one in measured):.3f} s to the first token")
    return measured


def _numbers(option: str, text: str, most: int) -> list[int]:
    """Raises typer.BadParameter."""
    try:
        numbers = [int(each) for each in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} should be whole numbers with commas between", param_hint=option) from None
    if not all(1 <= number <= most for number in numbers):
        raise typer.BadParameter(f"{text!r}: each should be between 1 and {most}", param_hint=option)
    return numbers


def _table(made: Fit, out: Path) -> Table:
    table = Table(title=f"Engine model, written to {out}", title_justify="left")
    table.add_column("coefficient")
    table.add_column("value", justify="right")
    for name, value in made.model.model_dump(exclude={"version", "source"}).items():
        table.add_row(name, f"{value:.4g}")
    table.add_row("error of first tokens", f"{made.ttft_error:.1%}")
    table.add_row("error of steps", f"{made.tpot_error:.1%}")
    return table
