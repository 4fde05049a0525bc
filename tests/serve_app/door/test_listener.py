"""One port, served by one process after another, and by several at once."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from serve_app.door.listener import PortTaken, acquire
from tests.serve_app.waiting import wait_for


@pytest.fixture
def directory() -> Iterator[Path]:
    """With a short name, which pytest's own has not."""
    with TemporaryDirectory(prefix="door") as name:
        yield Path(name)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def serving(port: int, directory: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that accepts from the port."""
    command = [sys.executable, "-m", "tests.serve_app.door.process", str(port), str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def ask(port: int) -> int:
    """Which process answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/")
        return int(connection.getresponse().read())
    finally:
        connection.close()


CLIENTS = 8


@dataclass
class Load:
    """Clients that ask without a pause: half of them keep their connections, half take a new one each time."""

    port: int
    answers: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        clients = [threading.Thread(target=self._ask, args=(number % 2 == 0,)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            self.stop.set()
            for client in clients:
                client.join()

    def after(self, count: int) -> list[int]:
        """The last of the next `count` answers, without those that were on their way."""
        before = len(self.answers)
        wait_for(lambda: len(self.answers) >= before + count)
        return self.answers[before + CLIENTS :]

    def _ask(self, keeping: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self.stop.is_set():
            try:
                connection.request("GET", "/")
                self.answers.append(int(connection.getresponse().read()))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            if not keeping:
                connection.close()
        connection.close()


def test_a_port_goes_from_process_to_process_without_a_failed_request(port: int, directory: Path) -> None:
    load = Load(port)
    with ExitStack() as stack:
        old = stack.enter_context(serving(port, directory))
        with load.running():
            for _ in range(3):
                assert old.pid in load.after(50)
                new = stack.enter_context(serving(port, directory))
                old.send_signal(signal.SIGTERM)
                assert old.wait(30) == 0
                assert set(load.after(50)) == {new.pid}
                old = new
    assert load.failures == []


def test_several_processes_serve_one_port_and_any_of_them_may_leave(port: int, directory: Path) -> None:
    load = Load(port)
    with serving(port, directory) as first, serving(port, directory) as second, load.running():
        wait_for(lambda: {first.pid, second.pid} <= set(load.answers))
        second.send_signal(signal.SIGTERM)
        assert second.wait(30) == 0
        assert set(load.after(50)) == {first.pid}
        assert load.failures == []


def test_processes_that_start_at_once_share_one_socket(port: int, directory: Path) -> None:
    command = [sys.executable, "-m", "tests.serve_app.door.process", str(port), str(directory)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * 3
        assert ask(port) in [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_what_a_killed_process_left_is_cleared_away(port: int, directory: Path) -> None:
    with serving(port, directory) as killed:
        killed.kill()
        killed.wait()
    left = directory / f"door-{port}-{killed.pid}.sock"
    assert left.exists()
    with serving(port, directory) as process:
        assert ask(port) == process.pid
        assert not left.exists()


def test_connections_in_the_queue_of_a_killed_process_are_served_by_its_sibling(port: int, directory: Path) -> None:
    with serving(port, directory) as first, serving(port, directory) as second:
        os.kill(first.pid, signal.SIGSTOP)
        os.kill(second.pid, signal.SIGSTOP)
        clients = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(5)]
        first.kill()
        os.kill(second.pid, signal.SIGCONT)
        for client in clients:
            with client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert client.recv(2**16).endswith(str(second.pid).encode())


def test_a_port_that_another_program_has_is_named(port: int, directory: Path) -> None:
    with socket.create_server(("127.0.0.1", port)), pytest.raises(PortTaken, match=f"port {port} of 127.0.0.1"):
        acquire("127.0.0.1", port, directory, patience_s=0.2)


def test_a_port_that_is_about_to_be_free_is_waited_for(port: int, directory: Path) -> None:
    holder = socket.create_server(("127.0.0.1", port))
    threading.Timer(0.3, holder.close).start()
    started = time.monotonic()
    acquire("127.0.0.1", port, directory, patience_s=20).close()
    assert time.monotonic() - started < 10


def test_a_listener_counts_others_but_not_itself_the_dead_or_the_leaving(port: int, directory: Path) -> None:
    with serving(port, directory) as other:
        listener = acquire("127.0.0.1", port, directory)
        try:
            assert listener.others()
            listener.leave()
            assert listener.others()
            os.kill(other.pid, signal.SIGTERM)  # it waits for us, who are leaving, too
            wait_for(lambda: not listener.others())
            assert other.poll() is None
            other.kill()
            other.wait()
            assert not listener.others()
        finally:
            listener.close()
    assert not list(directory.glob(f"*-{os.getpid()}.*"))


def test_the_directory_is_this_users_alone(port: int, directory: Path) -> None:
    acquire("127.0.0.1", port, directory / "doors").close()
    assert (directory / "doors").stat().st_mode & 0o777 == 0o700
