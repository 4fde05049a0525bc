"""`rayfleet render`: the files that users hand to `ray up` and `serve deploy`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from clusters import machines
from clusters.check import load
from clusters.render import ingress_config, site_config, to_yaml
from clusters.spec import FleetSpec

SERVE_PORT = 8000


def render(
    fleet: Annotated[Path, typer.Option("--fleet", envvar="RAYFLEET_FILE", help="The fleet file.")] = Path(
        "fleet.yaml"
    ),
    into: Annotated[Path, typer.Option("--into", help="Directory to write below.")] = Path(),
) -> None:
    """Write ray-cluster.yaml and config.yaml for the ingress and for every site."""
    for path, text in files(load(fleet)).items():
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        Console().print(str(target), highlight=False)


def files(fleet: FleetSpec) -> dict[str, str]:
    """Every rendered file by its path relative to the fleet file. Pure."""
    rendered = dict(machines.render(fleet))
    rendered["config.yaml"] = to_yaml(
        ingress_config(fleet, "0.0.0.0"),
        "The global ingress, rendered from fleet.yaml by `rayfleet render`.\n"
        "On its Ray cluster (ray-cluster.yaml): serve deploy config.yaml",
    )
    for site in fleet.sites:
        directory = machines.directory(fleet, site)
        rendered[f"{directory}/config.yaml"] = to_yaml(
            site_config(fleet, site, "0.0.0.0", SERVE_PORT),
            f"What {site.name} serves, rendered from fleet.yaml by `rayfleet render`.\n"
            f"On its Ray cluster: serve deploy {directory}/config.yaml",
        )
    return rendered
