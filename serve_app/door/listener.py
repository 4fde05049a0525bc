"""One listening socket per node and port, shared by the processes that serve it and handed on to their successors, so
that no connection in its queue is lost."""

import asyncio
import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BACKLOG = 4096
ANSWER_TIMEOUT_S = 2.0
"""For another process to hand its socket over, and for one that asks to say so."""

TAKE = b"t"
PEER = struct.Struct("3i")
"""SO_PEERCRED: pid, uid, gid."""

SILENT_CLIENTS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""Accepted connections inherit it: a client that vanished is found within a minute, though nothing is sent to it."""


class PortTaken(Exception):
    """Somebody listens on the port who does not hand it over. The message names it."""


class Listener:
    """This process's hold on the socket. As long as it is open, other processes get the socket from here: so `leave`,
    drain the door until there are `others`, then `close`."""

    def __init__(self, listening: socket.socket, port: int, directory: Path):
        self.socket = listening
        self.handed_over = asyncio.Event()
        """Somebody took it."""
        self._port = port
        self._directory = directory
        self._path = directory / f"door-{port}-{os.getpid()}.sock"
        self._path.unlink(missing_ok=True)
        self._handover = socket.socket(socket.AF_UNIX)
        self._handover.setblocking(False)
        self._handover.bind(os.fspath(self._path))
        self._handover.listen()

    async def serve_handover(self) -> None:
        """Hand the socket to every process of this user that asks, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            peer, _ = await loop.sock_accept(self._handover)
            with peer:
                peer.setblocking(False)
                try:
                    async with asyncio.timeout(ANSWER_TIMEOUT_S):
                        asked = await loop.sock_recv(peer, 1)
                    if asked == TAKE and _is_ours(peer):
                        socket.send_fds(peer, [TAKE], [self.socket.fileno()])
                        self.handed_over.set()
                except OSError:  # a timeout is one, too
                    continue

    def others(self) -> bool:
        """Whether another process, which is not about to leave, holds the socket."""
        staying = _peers(self._directory, self._port, "sock")
        return any(_answers(path) for path in staying if path != self._path)

    def leave(self) -> None:
        """Count for `others` no more. Until `close` the socket can still be had here."""
        self._path = self._path.rename(self._path.with_suffix(".leaving"))

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._handover.close()
        self.socket.close()


def acquire(host: str, port: int, directory: Path, patience_s: float = 5.0) -> Listener:
    """The node's socket for `port`: from a process that has it, or else a new one. `directory` is this user's alone,
    and its path short: a Unix socket's has at most 107 bytes. Blocks, for about `patience_s` at most. Raises
    PortTaken."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    deadline = time.monotonic() + patience_s
    with _locked(directory / f"door-{port}.lock"):
        while True:
            listening = _take_over(directory, port) or _bind(host, port)
            if listening is not None:
                return Listener(listening, port, directory)
            if time.monotonic() > deadline:
                raise PortTaken(f"port {port} of {host} is in use by a program that does not hand it over")
            time.sleep(0.05)  # its holder may be about to close


def _take_over(directory: Path, port: int) -> socket.socket | None:
    for path in _peers(directory, port, "*"):
        try:
            listening = _ask(path)
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)  # its process died
            continue
        except OSError:
            continue
        if listening is not None:
            return listening
    return None


def _ask(path: Path) -> socket.socket | None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(ANSWER_TIMEOUT_S)
        peer.connect(os.fspath(path))
        if not _is_ours(peer):
            return None
        peer.send(TAKE)
        _, fds, _, _ = socket.recv_fds(peer, 1, 1)
    return socket.socket(fileno=fds[0]) if fds else None


def _bind(host: str, port: int) -> socket.socket | None:
    """None when the port is in use. SO_REUSEPORT would share it with strangers, too."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for level, option, value in SILENT_CLIENTS:
            listening.setsockopt(level, option, value)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return listening


def _peers(directory: Path, port: int, suffix: str) -> list[Path]:
    return sorted(directory.glob(f"door-{port}-*.{suffix}"))


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.setblocking(False)
        # Anything but success means that it died, or is too busy to be counted on.
        return peer.connect_ex(os.fspath(path)) == 0


def _is_ours(peer: socket.socket) -> bool:
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
    uid: int = PEER.unpack(credentials)[1]
    return uid == os.geteuid()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two processes that start at once must not both find nobody there."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
