"""The index of prompt prefixes."""

import random
import sys

from hypothesis import given
from hypothesis import strategies as st

from serve_app.routing.prefixes import BLOCK_BYTES, MAX_SITES, TOKENS_PER_BLOCK, Prefixes, hash_blocks

A, B, C = (bytes([letter]) * BLOCK_BYTES for letter in b"abc")


def test_equal_beginnings_have_equal_hashes() -> None:
    long, short = hash_blocks(b"m", A + B + C), hash_blocks(b"m", A + B + b"tail")
    assert len(long) == 3
    assert short == long[:2]


def test_a_hash_covers_all_before_it() -> None:
    assert hash_blocks(b"m", A + C)[1] != hash_blocks(b"m", B + C)[1]
    assert hash_blocks(b"m", A) != hash_blocks(b"other", A)


def test_only_whole_blocks_count_and_only_so_many() -> None:
    assert hash_blocks(b"m", A[:-1]) == ()
    assert len(hash_blocks(b"m", A * 200)) == 128
    assert len(hash_blocks(b"m", A * 2, block_bytes=64, max_blocks=10)) == 10


def test_a_conversation_is_found_where_it_was() -> None:
    prefixes = Prefixes(1000)
    prefixes.learn((1, 2, 3), "a")
    assert prefixes.match((1, 2, 3, 4)) == {"a": 3}
    assert prefixes.match((1, 2)) == {"a": 2}
    assert prefixes.match((9, 2, 3)) == {}
    assert prefixes.match(()) == {}


def test_every_site_that_has_a_part_is_found() -> None:
    prefixes = Prefixes(1000)
    prefixes.learn((1, 2, 3, 4, 5, 6, 7, 8), "a")
    prefixes.learn((1, 2, 3, 4), "b")
    prefixes.learn((1,), "c")
    assert prefixes.match((1, 2, 3, 4, 5, 6, 7, 8, 9)) == {"a": 8, "b": 4, "c": 1}


LENGTHS = st.lists(st.tuples(st.integers(1, 20), st.sampled_from("abcd")), max_size=10)


@given(learned=LENGTHS, asked=st.integers(0, 25))
def test_no_site_is_said_to_have_more_than_it_has(learned: list[tuple[int, str]], asked: int) -> None:
    prefixes, chain, longest = Prefixes(1000), tuple(range(1, 26)), dict[str, int]()
    for length, site in learned:
        prefixes.learn(chain[:length], site)
        longest[site] = max(longest.get(site, 0), length)
    found = prefixes.match(chain[:asked])
    assert all(count <= min(longest[site], asked) for site, count in found.items())
    most = min(max(longest.values(), default=0), asked)
    assert max(found.values(), default=0) == most
    assert all(found[site] == most for site in longest if most and min(longest[site], asked) == most)


def test_blocks_that_everybody_has_name_the_latest_sites_only() -> None:
    prefixes = Prefixes(1000)
    for n in range(10):
        prefixes.learn((1,), f"s{n}")
    assert prefixes.match((1,)) == {f"s{n}": 1 for n in range(9, 9 - MAX_SITES, -1)}


def test_memory_is_bounded_and_what_was_not_used_goes_first() -> None:
    prefixes = Prefixes(1000)
    rng = random.Random(1)
    for _ in range(300):
        prefixes.learn([rng.getrandbits(60) for _ in range(30)], f"s{rng.randrange(100)}", rng.getrandbits(60), 10)
        prefixes.learn((1, 2, 3), "a", session=7, prompt_tokens=50)
        kept = (prefixes._young, prefixes._old, prefixes._young_sessions, prefixes._old_sessions)
        assert sum(map(len, kept[:2])) <= 1000 + 60
        assert sum(map(len, kept[2:])) <= 1000
        assert len(prefixes._shared) <= 500
    assert prefixes.cached_tokens((1, 2, 3), 7) == {"a": 3 * TOKENS_PER_BLOCK}
    assert not prefixes.match((12345,))


def test_a_block_takes_about_as_much_memory_as_is_said() -> None:
    prefixes = Prefixes(2**13)
    rng = random.Random(1)
    for n in range(2**13 // 16 - 1):
        prefixes.learn([rng.getrandbits(62) for _ in range(16)], f"s{n % 100}")
    blocks = [*prefixes._young, *prefixes._old]
    size = sum(map(sys.getsizeof, (prefixes._young, prefixes._old, *blocks, *prefixes._shared)))
    assert len(blocks) > 2**12
    assert size / len(blocks) < 200


def test_an_index_of_no_blocks_learns_nothing() -> None:
    prefixes = Prefixes(0)
    prefixes.learn((1, 2), "a", session=7, prompt_tokens=100)
    assert prefixes.cached_tokens((1, 2), 7) == {}


def test_a_session_counts_for_the_prompt_that_it_had() -> None:
    prefixes = Prefixes(1000)
    prefixes.learn((), "a", session=7, prompt_tokens=900)
    assert prefixes.cached_tokens((), 7) == {"a": 900}
    assert prefixes.cached_tokens((), 8) == {}
    prefixes.learn((1,), "b", session=7, prompt_tokens=50)
    assert prefixes.cached_tokens((1,), 7) == {"b": TOKENS_PER_BLOCK}


def test_a_site_that_is_forgotten_may_learn_again() -> None:
    prefixes = Prefixes(1000)
    prefixes.learn((1, 2), "a", session=7, prompt_tokens=900)
    prefixes.learn((1,), "b")
    prefixes.forget("a")
    prefixes.forget("never known")
    assert prefixes.cached_tokens((1, 2), 7) == {"b": TOKENS_PER_BLOCK}
    prefixes.learn((1,), "a")
    assert prefixes.match((1, 2)) == {"a": 1, "b": 1}
