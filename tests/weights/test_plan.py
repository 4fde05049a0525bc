"""What a store lacks."""

from hypothesis import given
from hypothesis import strategies as st

from tests.weights.releases import NOW
from weights.manifest import MANIFEST, File, manifest_of
from weights.plan import Plan, plan
from weights.store import Stored

NAMES = [f"file-{number}" for number in range(6)]
RELEASE = manifest_of(
    "tiny", [File(path=name, size=at, sha256="0" * 64) for at, name in enumerate(NAMES)], "s", None, NOW
)


@given(st.dictionaries(st.sampled_from([*NAMES, MANIFEST, "stray"]), st.integers(0, 6)))
def test_every_file_is_copied_verified_or_vouched_for(there: dict[str, int]) -> None:
    todo = plan(RELEASE, [Stored(key, size) for key, size in there.items()])
    right = {file.path for file in RELEASE.files if there.get(file.path) == file.size}
    assert {file.path for file in todo.copy} == set(NAMES) - right
    assert {file.path for file in todo.verify} == (set() if MANIFEST in there else right)
    assert todo.publish == (MANIFEST not in there)


@given(st.dictionaries(st.sampled_from([*NAMES, MANIFEST]), st.integers(0, 6)))
def test_nothing_is_left_to_do_afterwards(there: dict[str, int]) -> None:
    done = there | {file.path: file.size for file in RELEASE.files} | {MANIFEST: 1}
    assert plan(RELEASE, [Stored(key, size) for key, size in done.items()]) == Plan((), (), publish=False)
