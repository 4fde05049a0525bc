"""A repository of the hub is read in ranges, whatever its servers do."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.hub import COMMIT, REPO, SIGNATURE, TOKEN, Hub, running
from weights.errors import SourceError
from weights.sources import hub as hub_module
from weights.sources.source import Source, open_source
from weights.store import PIECE

LARGE = random.Random(1).randbytes(5 * PIECE + 3)
FILES = {"config.json": b"{}", "sub dir/ü+#.bin": b"odd", "model.safetensors": LARGE, ".gitattributes": b"*"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running(Hub(FILES, large=frozenset({"model.safetensors"}))) as hub:
        yield hub


def opened(hub: Hub, revision: str = "@main") -> Source:
    return open_source(f"hf://{REPO}{revision}", Path(), hub.environ)


def read(source: Source, path: str, offset: int = 0, length: int = len(LARGE)) -> bytes:
    return b"".join(source.read(path, offset, length))


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}"])
def test_a_repository_has_files_and_a_commit(hub: Hub, revision: str) -> None:
    source = opened(hub, revision)
    assert source.revision == COMMIT
    assert not source.local
    assert {file.path: file.size for file in source.files} == {
        path: len(content) for path, content in FILES.items() if not path.startswith(".")
    }
    assert [file.path for file in source.files if file.sha256] == ["model.safetensors"]
    assert hub.served == []


def test_a_range_comes_in_pieces_and_nothing_else_is_sent(hub: Hub) -> None:
    source = opened(hub)
    pieces = list(source.read("model.safetensors", 7, 3 * PIECE))
    assert b"".join(pieces) == LARGE[7 : 7 + 3 * PIECE]
    assert max(map(len, pieces)) <= PIECE
    assert hub.served == [("model.safetensors", 7, 3 * PIECE)]
    assert read(source, "sub dir/ü+#.bin", 1, 2) == b"dd"


def test_the_token_opens_the_hub_and_goes_nowhere_else(hub: Hub) -> None:
    hub.gated = True
    source = opened(hub)
    assert read(source, "config.json", 0, 2) == b"{}"
    assert read(source, "model.safetensors") == LARGE
    assert hub.cdn_saw == [None]


def test_an_answer_that_breaks_off_is_continued(hub: Hub) -> None:
    hub.cut_after["model.safetensors"] = [3 * PIECE + 1, 10]
    assert read(opened(hub), "model.safetensors", 1) == LARGE[1:]
    assert hub.sent() < len(LARGE) + PIECE


def test_an_answer_that_always_breaks_off_ends_in_an_error(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "PAUSE_S", 0.0)
    hub.cut_after["model.safetensors"] = [10] * 100
    with pytest.raises(SourceError, match=r"can't read model\.safetensors of hf://org/model@main"):
        read(opened(hub), "model.safetensors")
    assert len(hub.served) == hub_module.RETRIES + 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_is_busy_is_asked_again(hub: Hub, status: int) -> None:
    hub.unavailable["model.safetensors"] = [status]
    assert read(opened(hub), "model.safetensors") == LARGE


def test_a_server_without_ranges_serves_what_begins_a_file_and_no_more(hub: Hub) -> None:
    hub.ranges = False
    source = opened(hub)
    assert read(source, "model.safetensors", 0, 2 * PIECE) == LARGE[: 2 * PIECE]
    with pytest.raises(SourceError, match="another range"):
        read(source, "model.safetensors", 1, 1)


def test_a_gated_repository_says_what_it_needs(hub: Hub) -> None:
    hub.gated = True
    with pytest.raises(SourceError, match="gated: HF_TOKEN") as caught:
        open_source(f"hf://{REPO}", Path(), {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_of-somebody-else"})
    assert "hf_of-somebody-else" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hf://org/model@absent", "no such revision"),
        ("hf://org/absent", "no such repository"),
    ],
)
def test_what_is_not_there_is_named(hub: Hub, name: str, reason: str) -> None:
    with pytest.raises(SourceError, match=f"{name}: .*{reason}"):
        open_source(name, Path(), hub.environ)


def test_a_file_that_is_gone_is_named(hub: Hub) -> None:
    source = opened(hub)
    hub.files = {}
    with pytest.raises(SourceError, match=r"read config\.json of .*no such file"):
        read(source, "config.json", 0, 2)


def test_no_error_tells_the_token_or_a_signed_address(hub: Hub) -> None:
    source = opened(hub)
    hub.unavailable["model.safetensors"] = [403]
    with pytest.raises(SourceError, match="403") as caught:
        read(source, "model.safetensors")
    error = caught.value
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert SIGNATURE not in str(error)
    assert TOKEN not in str(error)


def test_a_hub_that_is_away_is_an_error(hub: Hub) -> None:
    with pytest.raises(SourceError, match=f"can't read hf://{REPO}"):
        open_source(f"hf://{REPO}", Path(), {"HF_ENDPOINT": "http://127.0.0.1:1"})


def test_what_is_no_hub_is_an_error(hub: Hub) -> None:
    with pytest.raises(SourceError, match=f"can't read hf://{REPO}"):
        open_source(f"hf://{REPO}", Path(), {"HF_ENDPOINT": hub.endpoint + "/api"})
