"""A process that serves a shared port, as an ingress replica does: `python -m … <port> <directory>`. SIGTERM drains
it."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import uvloop

from serve_app.door.door import Door
from serve_app.door.exchange import Exchange, Request, Sink
from serve_app.door.limits import Limits
from serve_app.door.listener import acquire
from tests.serve_app.door.conftest import COLD, Held

ANSWER_S = 0.03


def answer(request: Request, sink: Sink) -> Exchange:
    """The process's id, in a while."""
    asyncio.get_running_loop().call_later(ANSWER_S, _answer, sink)
    return Held(sink)


def _answer(sink: Sink) -> None:
    body = str(os.getpid()).encode()
    sink.start(200, [], len(body))
    sink.write(body)
    sink.finish()


async def serve(port: int, directory: Path) -> None:
    listener = acquire("127.0.0.1", port, directory)
    door = Door(COLD, answer, lambda method, path: True, Limits())
    await door.open(listener.socket)
    handover = asyncio.create_task(listener.serve_handover())
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await told.wait()
    listener.leave()
    await door.drain(20, listener.others, idle_grace_s=0.5)
    handover.cancel()
    listener.close()
    door.close()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
