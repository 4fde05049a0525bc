"""What traces say, and what is said of bad ones."""

from pathlib import Path

import pytest

from autoscaling.simulate.availability import read_availability
from autoscaling.simulate.errors import BadTrace
from autoscaling.simulate.traces import Format, Request, read_trace
from autoscaling.simulate.workload import daily, for_model, pinned, scaled, stretched, within

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:50.5000000,374,44\n2023-11-16 18:15:49.2500000,396,109\n"
)
MOONCAKE = '{"timestamp": 1000, "input_length": 1300, "output_length": 5, "hash_ids": [7, 8, 9]}\n'
LOG = (
    '{"request_id":"a","started":100.5,"model":"m","tenant":"t","tokens_in":10,"tokens_out":4}\n'
    '{"request_id":"b","started":101.0,"model":"m","tokens_in":0,"tokens_out":0}\n'
)


def written(folder: Path, text: str) -> Path:
    path = folder / "trace"
    path.write_text(text)
    return path


def test_azure_is_read_in_order_of_time(tmp_path: Path) -> None:
    assert read_trace(written(tmp_path, AZURE)) == (Request(0.0, 396, 109), Request(1.25, 374, 44))


def test_mooncake_has_whole_blocks_only(tmp_path: Path) -> None:
    assert read_trace(written(tmp_path, MOONCAKE)) == (Request(0.0, 1300, 5, blocks=(7, 8), block_tokens=512),)


def test_of_a_request_log_those_with_an_answer_are_read(tmp_path: Path) -> None:
    assert read_trace(written(tmp_path, LOG)) == (Request(0.0, 10, 4, "m", "t"),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "neither Azure's columns"),
        ("TIMESTAMP,ContextTokens\n", "line 1, field GeneratedTokens: missing"),
        (AZURE + "2023-11-16 18:15:51,x,4\n", "line 4, field ContextTokens: 'x' is no whole number"),
        (AZURE + "2023-11-16 18:15:51,0,4\n", "line 4, field ContextTokens: '0' should be"),
        (AZURE + "2023-11-16 18:15:51,4\n", "line 4, field GeneratedTokens: None is no whole number"),
        (AZURE + "yesterday,3,4\n", "line 4, field TIMESTAMP: 'yesterday' is no time"),
        (MOONCAKE + "{\n", "line 2: no JSON"),
        (MOONCAKE + "[]\n", "line 2: no JSON object"),
        (MOONCAKE.replace("1000", '"soon"'), "line 1, field timestamp: 'soon' is no number"),
        (MOONCAKE.replace("1300", "1300.5"), "line 1, field input_length: 1300.5 should be"),
        (MOONCAKE.replace("9]", '"x"]'), "line 1, field hash_ids"),
        (LOG.replace('"m","tenant"', '3,"tenant"'), "line 1, field model: 3 is no text"),
        (LOG.replace("100.5", "null"), "line 1, field started: None is no number"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BadTrace) as error:
        read_trace(path)
    assert str(error.value).startswith(str(path))
    assert told in str(error.value)


def test_a_missing_file_and_one_without_requests_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadTrace, match="nowhere cannot be read"):
        read_trace(tmp_path / "nowhere")
    with pytest.raises(BadTrace, match="has no request"):
        read_trace(written(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\n"), Format.AZURE)


def test_availability_is_read_and_moved(tmp_path: Path) -> None:
    there = read_availability(
        written(tmp_path, '{"metadata": {"gap_seconds": 100}, "data": [0, 1, 1, 0, 1, 1, 1, 1, 0]}')
    )
    assert [there.at(at) for at in (0, 100, 299, 300, 400, 799, 800)] == [False, True, True, False, True, True, False]
    assert there.losses == ((180.0, 300.0), (680.0, 800.0))
    assert there.from_second(250).losses == ((0.0, 50.0), (430.0, 550.0))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "no JSON"),
        ('{"metadata": {}, "data": [1]}', "field metadata.gap_seconds: missing"),
        ('{"metadata": {"gap_seconds": 0}, "data": [1]}', "field metadata.gap_seconds: 0 should be"),
        ('{"metadata": {"gap_seconds": 5}, "data": []}', "field data: should be"),
        ('{"metadata": {"gap_seconds": 5}, "data": [1, 2]}', "field data[1]: 2 should be 0 or 1"),
    ],
)
def test_bad_availability_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BadTrace) as error:
        read_availability(path)
    assert str(path) in str(error.value)
    assert told in str(error.value)


def test_workloads_are_made_of_traces_by_seed() -> None:
    trace = [Request(float(n), 10, 5, blocks=(n,), block_tokens=512) for n in range(1000)]
    doubled = scaled(trace, 2.5, seed=4)
    assert doubled == scaled(trace, 2.5, seed=4)
    assert 2400 < len(doubled) < 2600
    assert len({request.blocks for request in doubled}) == len(doubled)
    assert [request.at for request in doubled] == sorted(request.at for request in doubled)
    assert len(within(trace, 100)) == 100
    assert stretched(trace, 2.0)[10].at == 20
    where = [request.only_site for request in pinned(trace, {"a": 0.3, "b": 0.2}, seed=1)]
    assert 250 < where.count("a") < 350
    assert 450 < where.count(None) < 550
    assert {request.model for request in for_model(trace, "m")} == {"m"}


def test_a_synthetic_day_swings() -> None:
    made = daily(86_400, 0.5, 0.8, seed=2)
    night = sum(request.at < 3600 for request in made)
    noon = sum(43_200 <= request.at < 46_800 for request in made)
    assert noon > 5 * night
    assert len(made) == pytest.approx(43_200, rel=0.05)
