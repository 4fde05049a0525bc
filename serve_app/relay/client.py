"""The client's side of a relay."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive


class ClientLeft(Exception):
    """The client closed its connection before it had its answer."""


async def while_client_stays(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`; cancel it as soon as the client leaves, and then raise ClientLeft. The request's body must have been
    received."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
