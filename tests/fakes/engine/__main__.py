"""`python -m tests.fakes.engine --name east`: says its two ports in one line of JSON, and serves until it is ended."""

import argparse
import asyncio
import json
import sys

import uvloop

from tests.fakes.engine.control import Control
from tests.fakes.engine.server import Door
from tests.fakes.engine.site import Site


async def serve(arguments: argparse.Namespace) -> None:
    site = Site(arguments.name, arguments.models.split(","), arguments.token, arguments.release)
    door = Door(site, arguments.port)
    await door.open()
    control = await Control(site, door).listen(arguments.control)
    sys.stdout.write(json.dumps({"port": door.port, "control": control}) + "\n")
    sys.stdout.flush()
    await (_end_of_stdin() if arguments.leashed else asyncio.Event().wait())


async def _end_of_stdin() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


def main() -> None:
    parser = argparse.ArgumentParser("tests.fakes.engine", description=__doc__)
    parser.add_argument("--name", default="east", help="of the site")
    parser.add_argument("--models", default="chat,embed", help="separated by commas")
    parser.add_argument("--token", default="site-token", help="what /models and /fleet/state ask for")
    parser.add_argument("--release", default="0" * 12, help="that the state reports for every model")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--control", type=int, default=0, help="port for orders; 0: a free one")
    parser.add_argument("--leashed", action="store_true", help="end with the end of standard input")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
