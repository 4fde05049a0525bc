"""The `rayfleet` command."""

import sys

import typer
from rich.console import Console

from autoscaling.simulate.errors import SimulateError
from clusters.check import InvalidFleet
from clusters.launch.local import NoLocalFleet
from clusters.launch.ports import NoFreePorts
from clusters.launch.processes import LaunchError
from serve_app.cli import calibrate, drain, endpoint, fleet, local, render, route, simulate, status, weights
from weights.errors import WeightsError

commands = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One OpenAI-compatible endpoint over many Ray clusters.",
)
for command in (
    fleet.check,
    fleet.schema,
    fleet.key,
    render.render,
    local.up,
    local.down,
    local.demo,
    status.status,
    route.route,
    drain.drain,
    simulate.simulate,
    calibrate.calibrate,
):
    commands.command()(command)
commands.add_typer(weights.app, name="weights", help="Push releases and replicate them to every site's store.")

EXPECTED = (
    InvalidFleet,
    LaunchError,
    NoFreePorts,
    NoLocalFleet,
    SimulateError,
    WeightsError,
    endpoint.FleetRefused,
    endpoint.FleetUnreachable,
    route.NoPlace,
    drain.StillBusy,
)


def app() -> None:
    """Run the command. What can be expected to go wrong is one message on stderr, not a traceback."""
    try:
        commands()
    except EXPECTED as error:
        Console(stderr=True, soft_wrap=True).print(f"rayfleet: {error}", style="red", markup=False, highlight=False)
        sys.exit(1)
