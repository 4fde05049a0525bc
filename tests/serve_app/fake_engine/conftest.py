"""Two engines of one kind: the first is told what to do, the second stays as it is."""

from collections.abc import Iterator

import pytest

from tests.fakes.engine.handle import Engine


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[Engine, Engine]]:
    with Engine("east") as east, Engine("west") as west:
        yield east, west


@pytest.fixture
def engine(engines: tuple[Engine, Engine]) -> Iterator[Engine]:
    yield engines[0]
    engines[0].heal()
