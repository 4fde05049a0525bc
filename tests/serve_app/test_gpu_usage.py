"""How busy cards are, read through NVIDIA's own Python module from a driver library that is made up."""

import asyncio
import ctypes
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from ray._private.thirdparty.pynvml import pynvml

from serve_app import gpu_usage
from serve_app.gpu_usage import GpuUsage
from tests.fakes.nvml import (
    DRIVER,
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    MADE_UP,
    NOT_SUPPORTED,
    SAYS,
    Card,
    FakeNvml,
    compiled,
)

OK = Card(40)
INTERVAL_S, SPAN_S = 0.05, 0.5
TIMEOUT_S = 60
UNKNOWN = "it is not known how busy GPU-a, GPU-b are: "
NOT_HERE = "NVML says: Not Found"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_usage, "INTERVAL_S", INTERVAL_S)
    monkeypatch.setattr(gpu_usage, "SPAN_S", SPAN_S)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged, whatever other tests have made of Serve's logger."""
    messages: list[str] = []
    ear = logging.Handler()
    ear.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("ray.serve").addHandler(ear)
    yield messages
    logging.getLogger("ray.serve").removeHandler(ear)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> FakeNvml:
    return compiled(tmp_path_factory.mktemp("nvml")) or pytest.skip("there is no C compiler")


@pytest.fixture
def nvml(built: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """As if the module had found it."""
    monkeypatch.setenv(SAYS, str(built.answers))
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(built.library)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return built


@asynccontextmanager
async def watching(*cards: str) -> AsyncIterator[GpuUsage]:
    usage = GpuUsage(cards)
    task = asyncio.create_task(usage.watch())
    try:
        yield usage
    finally:
        task.cancel()


async def until(condition: Callable[[], object]) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < TIMEOUT_S, "it did not happen in time"
        await asyncio.sleep(0.01)


async def told(usage: GpuUsage, share: float | None) -> None:
    expected = None if share is None else pytest.approx(share)
    await until(lambda: usage.share(time.monotonic()) == expected)


async def test_it_is_the_mean_of_the_replicas_own_cards(nvml: FakeNvml) -> None:
    nvml.says({"GPU-a": Card(40), "GPU-b": Card(80), "GPU-of-another": Card(99)})
    async with watching("GPU-a", "GPU-b") as usage:
        assert usage.share(time.monotonic()) is None
        await told(usage, 0.6)


async def test_it_is_the_mean_of_some_seconds_and_old_ones_are_no_data(nvml: FakeNvml) -> None:
    nvml.says({"GPU-a": Card(20)})
    async with watching("GPU-a") as usage:
        await told(usage, 0.2)
        nvml.says({"GPU-a": Card(100)})
        await told(usage, 1)
        assert usage.share(time.monotonic() + SPAN_S + 1) is None


async def test_idle_is_not_unknown(nvml: FakeNvml) -> None:
    nvml.says({"GPU-a": Card(0)})
    async with watching("GPU-a") as usage:
        await told(usage, 0)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({DRIVER: Card(code=DRIVER_NOT_LOADED)}, "NVML says: Driver Not Loaded"),
        ({"GPU-a": OK, "GPU-b": Card(code=GPU_IS_LOST)}, "NVML says: GPU is lost"),
        ({"GPU-a": Card(code=NOT_SUPPORTED), "GPU-b": OK}, "NVML says: Not Supported"),  # as cards in MIG mode do
        ({"GPU-a": Card(code=MADE_UP), "GPU-b": OK}, "NVML says: made up"),
        ({"GPU-a": Card(4294967295), "GPU-b": OK}, "NVML says 4294967295 %"),
        ({"GPU-a": OK}, NOT_HERE),
    ],
)
async def test_trouble_is_no_data_told_once_and_it_ends(
    nvml: FakeNvml, said: list[str], fault: dict[str, Card], why: str
) -> None:
    nvml.says(fault)
    async with watching("GPU-a", "GPU-b") as usage:
        await until(lambda: said)
        await asyncio.sleep(10 * INTERVAL_S)
        assert usage.share(time.monotonic()) is None
        assert said == [UNKNOWN + why]
        nvml.says({"GPU-a": OK, "GPU-b": OK})
        await told(usage, 0.4)


async def test_a_card_that_gets_lost_does_not_stay_as_busy_as_it_was(nvml: FakeNvml) -> None:
    nvml.says({"GPU-a": Card(90)})
    async with watching("GPU-a") as usage:
        await told(usage, 0.9)
        nvml.says({"GPU-a": Card(90, GPU_IS_LOST)})
        await told(usage, None)


async def test_without_a_driver_library_there_is_no_data(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    async with watching("GPU-a", "GPU-b") as usage:
        await until(lambda: said)
        await asyncio.sleep(10 * INTERVAL_S)
        assert usage.share(time.monotonic()) is None
    # Where there is a driver, it has no such cards.
    assert said in ([UNKNOWN + "NVML says: NVML Shared Library Not Found"], [UNKNOWN + NOT_HERE])


async def test_a_driver_that_lets_its_callers_wait_blocks_nothing_else(nvml: FakeNvml) -> None:
    nvml.says({"GPU-a": Card(50, delay_ms=4000)})
    longest_s = 0.0
    async with watching("GPU-a") as usage:
        while usage.share(before := time.monotonic()) is None:
            await asyncio.sleep(0.01)
            longest_s = max(longest_s, time.monotonic() - before)
    assert longest_s < 2
