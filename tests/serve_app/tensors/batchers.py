"""Batchers that outlive their tests."""

from serve_app.tensors.batcher import Batcher
from serve_app.tensors.program import Program

_KEPT: list[Batcher] = []


def kept(program: Program, max_rows: int, wait_s: float) -> Batcher:
    """Ray's queue opens an event loop when it is collected outside of one, and leaves it open: so none is collected."""
    _KEPT.append(Batcher(program, max_rows, wait_s))
    return _KEPT[-1]
