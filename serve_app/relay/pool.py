"""Pooled connections to every target."""

import asyncio
import time
from collections.abc import Mapping

from serve_app.relay.connection import Connection
from serve_app.relay.targets import Target

MAX_CONNECTIONS = 4096
"""Per target."""
KEEP_ALIVE_S = 15.0


class NoConnection(Exception):
    """The message says why, for people. `silent`: it took too long."""

    def __init__(self, message: str, silent: bool = False):
        super().__init__(message)
        self.silent = silent


class Pool:
    """Idle connections are used again, the latest first, so that the others may age and go."""

    def __init__(self, targets: Mapping[str, Target], connect_timeout_s: float):
        self._targets = targets
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[str, list[Connection]] = {name: [] for name in targets}
        self._open: dict[str, set[Connection]] = {name: set() for name in targets}

    def idle(self, target: str, now: float) -> Connection | None:
        """A connection that has served before, if there is one."""
        idle = self._idle[target]
        while idle:
            connection = idle.pop()
            if connection.alive and now - connection.idle_since < KEEP_ALIVE_S:
                return connection
            connection.close()
        return None

    async def connect(self, name: str) -> Connection:
        """A new one. Raises NoConnection."""
        if len(self._open[name]) >= MAX_CONNECTIONS:
            raise NoConnection("all connections are in use")
        target = self._targets[name]
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(name, self), target.host, target.port, ssl=target.tls
                )
        except TimeoutError as error:
            raise NoConnection("no connection in time", silent=True) from error
        except OSError as error:  # ssl's errors are among them
            raise NoConnection("no connection") from error
        self._open[name].add(connection)
        return connection

    def returned(self, connection: Connection) -> None:
        connection.idle_since = time.monotonic()
        self._idle[connection.target].append(connection)

    def gone(self, connection: Connection) -> None:
        self._open[connection.target].discard(connection)
        if connection in self._idle[connection.target]:
            self._idle[connection.target].remove(connection)

    def expire(self, now: float) -> None:
        """Close what has been idle for too long."""
        for idle in self._idle.values():
            while idle and now - idle[0].idle_since >= KEEP_ALIVE_S:
                idle.pop(0).close()

    def close(self) -> None:
        for connections in self._open.values():
            for connection in list(connections):
                connection.abandon()
