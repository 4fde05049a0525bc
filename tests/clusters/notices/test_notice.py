"""What is news, when it ends by our own clock, and how long to wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.notices.notice import Notice, NoticeSource, news, own_time
from clusters.notices.watching import MAX_PAUSE_S, pause_s, reader

TIMES = st.floats(-1e9, 1e9)


def test_of_several_notices_the_earliest_counts() -> None:
    late, early = Notice(200, "maintenance"), Notice(100, "preempted")
    assert news(None, [late, early]) == early
    assert news(late, [late, early]) == early
    assert news(early, [late, early]) is None


def test_a_notice_that_is_said_again_is_no_news() -> None:
    known = Notice(100, "preempted")
    assert news(known, [Notice(99, "preempted")]) is None, "clocks tell whole seconds"
    assert news(known, [Notice(130, "preempted")]) is None, "in 30 seconds, as it says each time"
    assert news(known, []) is None, "nor is its withdrawal: the node is on its way out"


@given(st.lists(TIMES, max_size=20))
def test_what_is_told_ends_earlier_each_time(ends: list[float]) -> None:
    told: list[Notice] = []
    for end in ends:
        if notice := news(told[-1] if told else None, [Notice(end, "")]):
            told.append(notice)
    assert [notice.ends_at for notice in told] == sorted({notice.ends_at for notice in told}, reverse=True)
    assert bool(told) == bool(ends)


@given(st.floats(0, 120), TIMES, st.floats(-1e6, 1e6))
def test_an_end_is_the_same_whatever_the_clocks_say(remaining_s: float, now: float, ahead_s: float) -> None:
    theirs = now + ahead_s
    assert own_time(theirs + remaining_s, theirs, now, 120) - now == pytest.approx(remaining_s, abs=1e-3)


@given(TIMES, st.none() | TIMES, TIMES)
def test_an_end_is_neither_past_nor_far_away(stated: float, theirs: float | None, now: float) -> None:
    assert now <= own_time(stated, theirs, now, 120) <= now + 120


def test_pauses_grow_to_a_bound() -> None:
    pauses = [pause_s(1, failures) for failures in range(2000)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (1, MAX_PAUSE_S)


def test_nobody_reads_where_there_are_no_notices() -> None:
    with pytest.raises(ValueError, match="no metadata server"):
        reader(NoticeSource.NONE)
