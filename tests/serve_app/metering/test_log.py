"""The request log keeps every line whole, stays within its bounds, and never troubles a request."""

import json
import logging
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from serve_app.metering.log import BLOCK_BYTES, MAX_BLOCKS, RequestLog
from serve_app.metering.log_files import LogFiles
from serve_app.metering.record import Outcome
from tests.serve_app.metering.records import record
from tests.serve_app.waiting import wait_for

PID = os.getpid()
GONE = 2**22 + 1
"""Beyond the largest pid that Linux gives."""


def lines(directory: Path) -> list[dict[str, Any]]:
    files = sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@contextmanager
def disk_that_ends_at(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def test_every_record_is_a_line(tmp_path: Path) -> None:
    log = RequestLog(LogFiles(tmp_path / "logs", file_bytes=2**20, files=4))
    log.append(record(request_id="a", outcome=Outcome.CLIENT_LEFT, ttft_s=None))
    log.append(record(request_id='line\nbreak and "quotes"'))
    assert log.flush() == 0
    log.append(record(request_id="c"))
    log.close()
    first, second, third = lines(tmp_path / "logs")
    assert (first["request_id"], first["outcome"], first["ttft_s"], first["usd"]) == ("a", "client_left", None, 0.25)
    assert (second["request_id"], third["request_id"]) == ('line\nbreak and "quotes"', "c")
    assert names(tmp_path / "logs") == [f"requests-{PID}-0.jsonl"]


def test_a_flush_writes_without_waiting_for_more(tmp_path: Path) -> None:
    log = RequestLog(LogFiles(tmp_path, file_bytes=2**20, files=4))
    log.append(record())
    log.flush()
    wait_for(lambda: names(tmp_path) and lines(tmp_path))
    assert names(tmp_path) == [f"requests-{PID}-0.jsonl.part"]
    log.close()


def test_a_full_block_is_written_without_a_flush(tmp_path: Path) -> None:
    log = RequestLog(LogFiles(tmp_path, file_bytes=2**22, files=4))
    for _ in range(BLOCK_BYTES // 256):
        log.append(record())
    wait_for(lambda: any(path.stat().st_size for path in tmp_path.iterdir()))
    log.close()
    assert len(lines(tmp_path)) == BLOCK_BYTES // 256


def test_files_are_rotated_by_size_and_the_oldest_go(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, file_bytes=100, files=3)
    for n in range(10):
        files.write(b'{"n": %d}' % n + b" " * 40 + b"\n")  # two in a file
    files.close()
    assert names(tmp_path) == [f"requests-{PID}-{n}.jsonl" for n in (2, 3, 4)]
    assert [line["n"] for line in lines(tmp_path)] == [4, 5, 6, 7, 8, 9]
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())


def test_numbers_go_on_where_an_earlier_run_stopped(tmp_path: Path) -> None:
    (tmp_path / f"requests-{PID}-7.jsonl").write_text("{}\n")
    (tmp_path / f"requests-{PID}-8.jsonl.part").write_text("{}\n")
    files = LogFiles(tmp_path, file_bytes=100, files=9)
    files.write(b"{}\n")
    files.close()
    assert f"requests-{PID}-9.jsonl" in names(tmp_path)


def test_files_of_processes_that_are_gone_count_as_ours_and_others_are_left_alone(tmp_path: Path) -> None:
    for n in range(5):
        gone = tmp_path / f"requests-{GONE}-{n}.jsonl"
        gone.touch()
        os.utime(gone, (n, n))
    kept = [f"requests-{os.getppid()}-0.jsonl.part", "notes.jsonl", f"requests-{GONE}-4.jsonl.gz"]
    for name in kept:
        (tmp_path / name).touch()
    files = LogFiles(tmp_path, file_bytes=100, files=3)
    files.write(b"{}\n")
    files.close()
    ours = [f"requests-{GONE}-3.jsonl", f"requests-{GONE}-4.jsonl", f"requests-{PID}-0.jsonl"]
    assert names(tmp_path) == sorted(kept + ours)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, file_bytes=2**20, files=4)
    files.write(b'{"n": 0}\n')
    with disk_that_ends_at(20), pytest.raises(OSError, match="File too large"):
        files.write(b'{"n": 1}\n' * 10)
    files.write(b'{"n": 2}\n')
    files.close()
    assert [line["n"] for line in lines(tmp_path)] == [0, 2]


def test_a_directory_that_cannot_be_written_costs_records_and_one_warning_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "logs"
    blocked.write_text("a file is in the way")
    now = [0.0]
    lost = 0
    log = RequestLog(LogFiles(blocked, file_bytes=2**20, files=4), clock=lambda: now[0])

    def all_are_lost(so_far: int) -> bool:
        nonlocal lost
        lost += log.flush()
        return lost == so_far

    with caplog.at_level(logging.WARNING):
        for now[0], so_far in ((0.0, 1), (59.0, 2), (61.0, 3)):
            log.append(record())
            wait_for(partial(all_are_lost, so_far))
    assert [each.getMessage().partition(", ")[2][:9] for each in caplog.records] == ["1 records", "3 records"]
    blocked.unlink()
    log.append(record(request_id="again"))
    assert log.flush() == 0
    log.close()
    assert [line["request_id"] for line in lines(blocked)] == ["again"]


class HangingFiles(LogFiles):
    """A disk that doesn't answer until it is let go."""

    def __init__(self, directory: Path):
        super().__init__(directory, file_bytes=2**26, files=4)
        self.answers = threading.Event()

    def write(self, lines: bytes | bytearray) -> None:
        assert self.answers.wait(60)
        super().write(lines)


def test_a_disk_that_hangs_takes_bounded_memory_and_the_rest_is_counted(tmp_path: Path) -> None:
    files = HangingFiles(tmp_path)
    log = RequestLog(files)
    sent = lost = 0
    while lost == 0:
        for _ in range(1000):
            log.append(record())
        sent += 1000
        lost = log.flush()
        assert sent < 1_000_000
    assert sent * len(msgspec.json.encode(record())) < (MAX_BLOCKS + 3) * BLOCK_BYTES
    files.answers.set()
    log.close()
    assert len(lines(tmp_path)) == sent - lost
