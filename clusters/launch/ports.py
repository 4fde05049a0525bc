"""Port blocks, so that several Ray clusters share one machine with each other and with anything else on it."""

import random
from collections.abc import Set
from dataclasses import dataclass

import psutil

BLOCK = 400
LOWEST, HIGHEST = 10_000, 32_000
"""Below the kernel's ephemeral range, from which outgoing connections take theirs."""


class NoFreePorts(Exception):
    """No block of free ports is left on this machine."""


@dataclass(frozen=True)
class PortBlock:
    """`BLOCK` consecutive ports of one Ray cluster. Each property below is one port or one inclusive range."""

    base: int

    @property
    def gcs(self) -> int:
        return self.base

    @property
    def dashboard(self) -> int:
        return self.base + 1

    @property
    def agent_http(self) -> int:
        return self.base + 2

    @property
    def agent_grpc(self) -> int:
        return self.base + 3

    @property
    def runtime_env_agent(self) -> int:
        return self.base + 4

    @property
    def metrics(self) -> int:
        return self.base + 5

    @property
    def client(self) -> int:
        return self.base + 6

    @property
    def node_manager(self) -> int:
        return self.base + 7

    @property
    def object_manager(self) -> int:
        return self.base + 8

    @property
    def serve(self) -> int:
        return self.base + 9

    @property
    def haproxy_stats(self) -> int:
        return self.base + 10

    @property
    def haproxy_metrics(self) -> int:
        return self.base + 11

    @property
    def workers(self) -> tuple[int, int]:
        return self.base + 20, self.base + 219

    @property
    def replica_http(self) -> tuple[int, int]:
        return self.base + 220, self.base + 309

    @property
    def replica_grpc(self) -> tuple[int, int]:
        return self.base + 310, self.base + 399


def free_blocks(count: int, avoid: Set[int] = frozenset()) -> list[PortBlock]:
    """`count` blocks in which nothing listens now. Raises NoFreePorts."""
    taken = {connection.laddr.port for connection in psutil.net_connections("tcp") if connection.laddr} | avoid
    bases = [base for base in range(LOWEST, HIGHEST, BLOCK) if taken.isdisjoint(range(base, base + BLOCK))]
    if len(bases) < count:
        raise NoFreePorts(f"{count} blocks of {BLOCK} free ports are needed, {len(bases)} are left")
    # Two launchers that start at the same moment should not choose the same ones.
    return [PortBlock(base) for base in random.sample(bases, count)]
