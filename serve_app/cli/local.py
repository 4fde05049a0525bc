"""`rayfleet up`, `down` and `demo`: the whole fleet on this machine."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from openai import OpenAIError
from rich.console import Console

from clusters.check import load as load_fleet
from clusters.launch import local as launch
from clusters.launch.local import INGRESS, LocalFleet
from clusters.launch.processes import LaunchError, find, free_port, is_free, log_tail
from serve_app.cli import demo as showing
from serve_app.cli.steps import Steps
from serve_app.cli.steps import console as output
from serve_app.cli.weights import push_and_replicate

FleetOption = Annotated[Path, typer.Option("--fleet", envvar="RAYFLEET_FILE", help="The fleet file.")]
DirOption = Annotated[Path, typer.Option("--dir", help="Where configs, logs and secrets of the local fleet are kept.")]
PortOption = Annotated[
    int | None,
    typer.Option("--port", help="Port of the endpoint; unset takes 8000, or a free one where that is taken."),
]
SiteArgument = Annotated[str | None, typer.Argument(help="Only this site of a running local fleet.")]

DEFAULT_FLEET = Path("fleet.yaml")
DEFAULT_DIR = Path("clusters/local")
USUAL_PORT = 8000
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(
    site: SiteArgument = None,
    fleet: FleetOption = DEFAULT_FLEET,
    directory: DirOption = DEFAULT_DIR,
    port: PortOption = None,
) -> None:
    """Start the fleet on this machine and leave it running; or bring one stopped site of it back."""
    console = output()
    if site:
        bring_back(launch.load(directory), site, console)
        return
    with _interruptible():
        local = bring_up(fleet, directory, port, console)
    showing.show_access(local, console)
    console.print("It runs until [bold]rayfleet down[/].")


def down(site: SiteArgument = None, directory: DirOption = DEFAULT_DIR) -> None:
    """End the local fleet and remove what it wrote; or stop one site of it, as if its region were lost."""
    local = launch.load(directory)
    if site:
        _known(local, site)
        ended = launch.stop_cluster(local, site)
    else:
        ended = launch.tear_down(local)
    output().print(f"ended {ended} processes")


def demo(
    fleet: FleetOption = DEFAULT_FLEET,
    directory: DirOption = DEFAULT_DIR,
    port: PortOption = None,
    once: Annotated[bool, typer.Option("--once", help="Check the answers, tear down, and exit.")] = False,
) -> None:
    """Start the fleet here, show a streamed answer, stay up until Ctrl-C, and leave nothing behind."""
    console = output()
    with _interruptible():
        local = bring_up(fleet, directory, port, console)
        try:
            showing.show_fleet(local, console)
            showing.show_answer(local, console)
            if once:
                showing.check_answers(local, console)
            showing.show_access(local, console)
            if not once:
                console.print("It runs until [bold]Ctrl-C[/].")
                threading.Event().wait()
        except KeyboardInterrupt:
            console.print()
        except OpenAIError as error:
            raise LaunchError(f"{error}\n{log_tail(local.run.log(INGRESS))}") from error
        finally:
            with _undisturbed(), console.status("ending every process"):
                ended = launch.tear_down(local)
            left = len(find(local.run.id))
            console.print(f"ended {ended} processes, {left} left")
    if left:
        raise LaunchError(f"{left} processes of the run could not be ended")


def bring_up(fleet_file: Path, directory: Path, port: int | None, console: Console) -> LocalFleet:
    """Stores, weights, sites and the ingress. Raises LaunchError and leaves no process when a part does not start."""
    declared = load_fleet(fleet_file)
    with Steps(console) as steps:
        with steps.step("object stores") as report:
            report(", ".join(f"{site.name} {site.store.url.partition(':')[0]}" for site in declared.sites))
            local = launch.prepare(declared, fleet_file.parent, directory, _port(port))
        try:
            with steps.step("weights") as report:
                push_and_replicate(local.fleet, os.environ | launch.environment(local), report)
            with steps.step("Ray clusters") as report:
                # One after the other: each starts in seconds, but not beside engines that load.
                for name in local.heads:
                    report(name)
                    launch.start_cluster(local, name)
            _all_at_once([_deploying(local, name, steps) for name in local.heads])
            with steps.step("first readings"):
                showing.wait_healthy(local)
        except BaseException:
            with _undisturbed():
                launch.tear_down(local, keep_logs=True)
            raise
    return local


def _port(asked: int | None) -> int:
    if asked is None:
        return USUAL_PORT if is_free(USUAL_PORT) else free_port()
    if not is_free(asked):
        raise LaunchError(f"port {asked} is taken; leave --port out to take a free one")
    return asked


def bring_back(local: LocalFleet, name: str, console: Console) -> None:
    """Start one stopped cluster of a running fleet again."""
    _known(local, name)
    with Steps(console) as steps:
        with steps.step("Ray cluster"):
            launch.start_cluster(local, name)
        _deploying(local, name, steps)()


def _deploying(local: LocalFleet, name: str, steps: Steps) -> Callable[[], None]:
    def deploy() -> None:
        with steps.step(name) as report:
            report("serve deploy")
            launch.deploy(local, name)
            launch.wait_running(local, name, report)

    return deploy


def _all_at_once(tasks: list[Callable[[], None]]) -> None:
    """The first failure is raised at once: the caller ends the processes that the other tasks wait for."""
    pool = ThreadPoolExecutor(len(tasks))
    try:
        done, _ = wait([pool.submit(task) for task in tasks], return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _known(local: LocalFleet, name: str) -> None:
    if name not in local.heads:
        raise typer.BadParameter(f"no {name!r} here; there are {', '.join(local.heads)}")


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and a closed terminal tear down as Ctrl-C does, which works in the background too."""

    def interrupt(number: int, frame: object) -> None:
        del number, frame
        raise KeyboardInterrupt

    with _handling(interrupt):
        yield


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not stop the tear-down half way."""
    with _handling(signal.SIG_IGN):
        yield


@contextmanager
def _handling(handler: Callable[[int, object], None] | signal.Handlers) -> Iterator[None]:
    previous = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
