"""The latest choices."""

from serve_app.routing.recent import Recent
from tests.serve_app.routing.fleets import desk


def test_the_latest_choices_are_kept() -> None:
    at, recent = desk("a"), Recent(2)
    first, second, third = at.choose(), at.choose(), at.choose()
    recent.keep("r1", first)
    recent.keep("r2", first)
    recent.keep("r1", second)
    assert recent.get("r1") is second
    recent.keep("r3", third)
    assert (recent.get("r1"), recent.get("r2"), recent.get("r3")) == (second, None, third)


def test_none_may_be_kept() -> None:
    recent = Recent(0)
    recent.keep("r", desk("a").choose())
    assert recent.get("r") is None


def test_a_kept_choice_is_explained_as_it_was() -> None:
    at, recent = desk("a", "b"), Recent(10)
    recent.keep("r", at.choose())
    told = at.choose().explanation()
    kept = recent.get("r")
    assert kept is not None
    before = kept.explanation()
    for _ in range(30):
        at.books.leases.take("a", "m")
    at.books.health.failed("b", "m", "reset", at.now)
    at.now += 60
    at.choose()
    assert kept.explanation() == before
    assert before.considered[0].load == told.considered[0].load == 0
