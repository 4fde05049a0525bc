"""`rayfleet drain`: take a site out of service without failing a request."""

import json
import time
from typing import Annotated
from urllib.parse import quote

import typer
from rich.console import Console

from serve_app.cli.endpoint import DEFAULT_DIR, DirOption, Endpoint, EndpointOption
from serve_app.cli.status import Site, read_sites
from serve_app.cli.steps import Steps, console

POLL_S = 0.5
SETTLED = 5
"""Empty readings in a row that are believed: for about as long the ingress's other replicas may not know yet."""
STRAGGLERS_S = 300.0
"""Past the deadline, for answers that can't go on elsewhere."""


class StillBusy(Exception):
    """A site has requests long past its deadline."""


def drain(
    site: Annotated[str, typer.Argument(help="A site of the fleet.")],
    deadline: Annotated[
        float, typer.Option(min=0, help="Seconds until streams that still run there go on elsewhere.")
    ] = 60.0,
    off: Annotated[bool, typer.Option("--off", help="End the draining.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until no request is left there.")] = False,
    endpoint: EndpointOption = None,
    directory: DirOption = DEFAULT_DIR,
) -> None:
    """Send a site no new requests, and let those finish that it has. The key must be an operator's."""
    if off and wait:
        raise typer.BadParameter("--wait is for a site that drains, --off ends that")
    ingress = Endpoint.find(endpoint, directory)
    order = {"deadline_s": None if off else deadline}
    ingress.post(f"/fleet/sites/{quote(site, safe='')}/drain", json.dumps(order).encode(), {})
    if off:
        console().print(f"{site} takes requests again", highlight=False)
        return
    console().print(
        f"{site} takes no new requests; streams that run there in {deadline:g} s go on elsewhere", highlight=False
    )
    if wait:
        wait_empty(ingress, site, deadline, console())


def wait_empty(ingress: Endpoint, name: str, deadline_s: float, console: Console) -> None:
    """Until the site drains and has no request. Raises StillBusy, FleetUnreachable and FleetRefused."""
    until = time.monotonic() + deadline_s + STRAGGLERS_S
    empty, told = 0, ""
    with Steps(console) as steps, steps.step(f"draining {name}") as report:
        while empty < SETTLED:
            site = next(each for each in read_sites(ingress.url, ingress.key) if each["site"] == name)
            left = requests_at(site)
            empty = empty + 1 if site["draining"] and not left else 0
            told, before = f"{left} request{'' if left == 1 else 's'} there", told
            if told != before:
                report(told)
            if time.monotonic() > until:
                raise StillBusy(f"{name} still has requests, {STRAGGLERS_S:g} s past the deadline: {left}")
            time.sleep(POLL_S)


def requests_at(site: Site) -> int:
    """What the site counts itself, or the ingress's own requests there where those are more: a site may be silent."""
    reported = {
        placement["model"]: (placement.get("running") or 0) + (placement.get("waiting") or 0)
        for placement in site["placements"]
    }
    leases: dict[str, int] = site["leases"]
    return sum(max(reported.get(model, 0), leases.get(model, 0)) for model in {*reported, *leases})
