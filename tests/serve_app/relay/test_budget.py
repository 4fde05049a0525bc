"""How many attempts may come on top of plain requests."""

import pytest

from serve_app.relay.budget import BURST, Budget


@pytest.mark.parametrize("share", [0.02, 0.2, 1.0])
def test_extra_attempts_stay_a_share_of_the_requests(share: float) -> None:
    budget = Budget(share)
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()
        spent += budget.spend()
    assert 1000 * share - 1 <= spent <= 1000 * share + BURST


def test_a_share_of_nothing_allows_nothing() -> None:
    budget = Budget(0)
    budget.earn()
    assert not budget.spend()


def test_idle_times_are_not_saved_up() -> None:
    budget = Budget(1.0)
    for _ in range(1000):
        budget.earn()
    assert sum(budget.spend() for _ in range(1000)) == BURST
