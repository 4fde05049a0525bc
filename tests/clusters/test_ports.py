"""Port blocks of Ray clusters on one machine."""

import socket
from itertools import pairwise

import pytest

from clusters.launch.ports import BLOCK, HIGHEST, LOWEST, NoFreePorts, PortBlock, free_blocks


def test_blocks_do_not_overlap() -> None:
    bases = sorted(block.base for block in free_blocks(4))
    assert all(low + BLOCK <= high for low, high in pairwise(bases))


def test_a_block_with_a_listener_is_avoided() -> None:
    everything = len(range(LOWEST, HIGHEST, BLOCK))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", LOWEST + 7))
        listener.listen()
        assert LOWEST not in {block.base for block in free_blocks(everything // 2)}


def test_ports_of_a_block_are_distinct_and_inside() -> None:
    block = PortBlock(10_000)
    single = [
        value
        for name in dir(PortBlock)
        if isinstance(getattr(PortBlock, name), property) and isinstance(value := getattr(block, name), int)
    ]
    ranges = [block.workers, block.replica_http, block.replica_grpc]
    ports = single + [port for first, last in ranges for port in range(first, last + 1)]
    assert len(ports) == len(set(ports))
    assert all(block.base <= port < block.base + BLOCK for port in ports)


def test_too_many_are_refused() -> None:
    with pytest.raises(NoFreePorts):
        free_blocks(1000)
