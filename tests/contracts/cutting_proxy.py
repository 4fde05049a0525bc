"""A proxy before a store that ends each connection in the middle of a long answer."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from urllib.parse import urlsplit


@contextmanager
def cutting_proxy(endpoint: str, after_bytes: int, connections: int | None = None) -> Iterator[str]:
    """Its endpoint. Each connection is cut when the store has answered more than `after_bytes` on it, or only the first
    `connections`."""
    url = urlsplit(endpoint)
    limits = repeat(after_bytes) if connections is None else chain(repeat(after_bytes, connections), repeat(None))
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments = (server, (url.hostname, url.port), limits)
        threading.Thread(target=_accept, args=arguments, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def _accept(server: socket.socket, store: tuple[str, int], limits: Iterator[int | None]) -> None:
    with suppress(OSError):
        for after_bytes in limits:
            client, _ = server.accept()
            behind = socket.create_connection(store)
            threading.Thread(target=_forward, args=(client, behind, None), daemon=True).start()
            threading.Thread(target=_forward, args=(behind, client, after_bytes), daemon=True).start()


def _forward(source: socket.socket, sink: socket.socket, after_bytes: int | None) -> None:
    """Until either end closes, or what is left of `after_bytes` is spent; then both are closed."""
    left = after_bytes
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data if left is None else data[:left])
            if left is not None and (left := left - len(data)) < 0:
                break
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
