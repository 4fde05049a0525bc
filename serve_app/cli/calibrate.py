"""`rayfleet calibrate`: measures a real placement through its endpoint, and fits the simulator's engine model to it."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from autoscaling.simulate.calibration import FIRST_TOKEN, STEP, Batch, Fit, fit, together
from autoscaling.simulate.engine_model import save_model
from serve_app.cli.cache_config import read_cache_config
from serve_app.cli.endpoint import DEFAULT_DIR, DirOption, Endpoint, EndpointOption
from serve_app.cli.probe import Probe
from serve_app.cli.steps import console

WORDS = ("river", "stone", "window", "garden", "letter", "morning", "bridge", "paper", "silver", "winter")
MOST_BATCH = 256


class Shape(NamedTuple):
    """Of one experiment."""

    requests: int
    words: int


Told = Callable[[Shape, Batch], None]


def calibrate(
    model: Annotated[str, typer.Argument(help="That is served there.")],
    site: Annotated[str, typer.Option(help="Its site. Nothing else should use the placement meanwhile.")],
    kv_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of its KV cache, as vLLM logs them at its start.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="URL of the engine's own metrics, which tell these tokens too.")
    ] = None,
    out: Annotated[Path, typer.Option(help="File for the engine model.")] = Path("engine.json"),
    prompts: Annotated[str, typer.Option(help="Words of the prompts; each should fit one step.")] = "16,64,256,512",
    batches: Annotated[str, typer.Option(help="Requests at once, up to max_num_seqs.")] = "1,2,4,8,16",
    tokens: Annotated[int, typer.Option(min=2, max=4096, help="Of each answer.")] = 64,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Of each experiment; the median counts.")] = 3,
    endpoint: EndpointOption = None,
    directory: DirOption = DEFAULT_DIR,
) -> None:
    """Measure a placement with one replica and write its engine model for `rayfleet simulate`."""
    plan = shapes(_numbers("--prompts", prompts, 2**20), _numbers("--batches", batches, MOST_BATCH))
    if not out.parent.is_dir():
        raise typer.BadParameter(f"{out.parent} is no directory", param_hint="--out")
    probe = Probe(Endpoint.find(endpoint, directory), model, site)
    size = kv_tokens or _read_kv_tokens(metrics)
    experiments = _measure(probe, plan, tokens, repeats)
    source = f"measured at {site} on {time.strftime('%Y-%m-%d')}: {model}, {len(plan)} experiments, {repeats} times"
    made = fit(experiments, size, source)
    save_model(made.model, out)
    console().print(_coefficients(made, out))
    console().print(_checks(made))


def shapes(lengths: Sequence[int], sizes: Sequence[int]) -> list[Shape]:
    """Single requests of every length, and batches of every size with the shortest and the longest prompts."""
    single = [Shape(1, words) for words in sorted({*lengths})]
    ends = sorted({min(lengths), max(lengths)})
    return single + [Shape(size, words) for size in sorted({*sizes} - {1}) for words in ends]


async def measure(
    probe: Probe, plan: Sequence[Shape], tokens: int, repeats: int, told: Told = lambda *_: None
) -> list[list[Batch]]:
    """The batches of each shape. Each round does all of them once, so that a busy minute spoils none of them wholly.
    Raises FleetUnreachable and FleetRefused."""
    experiments: list[list[Batch]] = [[] for _ in plan]
    async with probe:
        await probe.batch(_prompts(max(plan)), tokens)
        for _ in range(repeats):
            for shape, made in zip(plan, experiments, strict=True):
                made.append(await probe.batch(_prompts(shape), tokens))
                told(shape, made[-1])
    return experiments


def _measure(probe: Probe, plan: Sequence[Shape], tokens: int, repeats: int) -> list[list[Batch]]:
    """`measure` with a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("warm up", total=repeats * len(plan))

        def told(shape: Shape, batch: Batch) -> None:
            progress.update(task, advance=1, description=f"{shape.requests} at once, {shape.words} words")
            if not together(batch):
                progress.console.print(f"{shape.requests} at once never all ran: left out. Is max_num_seqs lower?")

        return asyncio.run(measure(probe, plan, tokens, repeats, told))


def _read_kv_tokens(metrics: str | None) -> int:
    """Raises FleetUnreachable, and typer.BadParameter without a URL."""
    if metrics is None:
        raise typer.BadParameter("give it, or --metrics: vLLM logs it as `GPU KV cache size`", param_hint="--kv-tokens")
    return read_cache_config(metrics).kv_tokens


def _prompts(shape: Shape) -> list[str]:
    """New ones, so that no cache helps."""
    return [" ".join(random.choices(WORDS, k=shape.words)) for _ in range(shape.requests)]


def _numbers(option: str, text: str, most: int) -> list[int]:
    """Raises typer.BadParameter."""
    try:
        numbers = [int(each) for each in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} should be whole numbers with commas between", param_hint=option) from None
    if not all(1 <= number <= most for number in numbers):
        raise typer.BadParameter(f"{text!r}: each should be between 1 and {most}", param_hint=option)
    return numbers


def _coefficients(made: Fit, out: Path) -> Table:
    table = Table(title=f"Engine model, written to {out}", title_justify="left", min_width=len(str(out)) + 26)
    table.add_column("coefficient")
    table.add_column("value", justify="right")
    for name, value in made.model.model_dump(exclude={"version", "source"}).items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    return table


def _checks(made: Fit) -> Table:
    """How well the model gives back what it was made of."""
    table = Table(title="Measured and modelled, ms", title_justify="left", show_footer=True)
    errors = f"mean {made.error(FIRST_TOKEN):.1%} of first tokens, {made.error(STEP):.1%} of steps"
    table.add_column("of a batch", footer=errors)
    for column in ("requests", "prompt tokens", "measured", "modelled", "error"):
        table.add_column(column, justify="right")
    for check in made.checks:
        measured, modelled = (f"{1e3 * seconds:.2f}" for seconds in (check.measured_s, check.modelled_s))
        table.add_row(
            check.what, str(check.requests), str(check.prompt_tokens), measured, modelled, f"{check.error:+.1%}"
        )
    return table
