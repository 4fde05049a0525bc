"""The fleets that `rayfleet simulate` compares: the one that is declared, and others beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from autoscaling.simulate.controllers import Fixed, Rayfleet
from autoscaling.simulate.planned import Planned, can_plan
from autoscaling.simulate.ports import Controller, Place
from clusters.check import load
from clusters.scaling import ScalingPolicy
from clusters.spec import FleetSpec

OWN = "as declared"
UNPLANNED = "unplanned"
FIXED = "fixed"


@dataclass(frozen=True)
class Variant:
    """One of the fleets that are compared."""

    name: str
    fleet: FleetSpec
    fixed: bool = False
    """Always at its most replicas."""

    @property
    def planned(self) -> bool:
        return not self.fixed and can_plan(self.fleet)

    @property
    def label(self) -> str:
        return f"{self.name}, planned" if self.planned else self.name

    def controller(self) -> Controller:
        if self.fixed:
            return Fixed(self.initial())
        if self.planned:
            return Planned(self.fleet)
        return Rayfleet({(each.site, each.model): each.autoscaling for each in self.fleet.placements})

    def initial(self) -> dict[Place, int]:
        """Replicas from the start on, where these are not the fewest."""
        if not self.fixed:
            return {}
        return {(each.site, each.model): each.autoscaling.max_replicas for each in self.fleet.placements}


def variants(fleet: Path, compare: Sequence[str]) -> list[Variant]:
    """The file's own fleet first. Hosted targets are left out: what they would do is not modelled.

    Raises InvalidFleet, and typer.BadParameter where there is no planner to be left out."""
    own = _loaded(fleet)
    made = [Variant(OWN, own)]
    for each in compare:
        if each == FIXED:
            made.append(Variant(FIXED, own, fixed=True))
        elif each == UNPLANNED:
            made.append(Variant(UNPLANNED, _unplanned(own)))
        elif each in list(ScalingPolicy):
            made.append(Variant(each, _scaled(own, ScalingPolicy(each))))
        else:
            taken = {variant.name for variant in made}
            made.append(Variant(each if Path(each).name in taken else Path(each).name, _loaded(Path(each))))
    return made


def _loaded(path: Path) -> FleetSpec:
    return load(path).model_copy(update={"hosted": ()})


def _unplanned(fleet: FleetSpec) -> FleetSpec:
    if not can_plan(fleet):
        why = "planner.enabled is false" if not fleet.planner.enabled else "no model has two placements"
        raise typer.BadParameter(f"fleet {fleet.name} has no planner to leave out: {why}", param_hint="--compare")
    return fleet.model_copy(update={"planner": fleet.planner.model_copy(update={"enabled": False})})


def _scaled(fleet: FleetSpec, policy: ScalingPolicy) -> FleetSpec:
    placements = tuple(
        each.model_copy(update={"autoscaling": each.autoscaling.model_copy(update={"policy": policy})})
        for each in fleet.placements
    )
    return fleet.model_copy(update={"placements": placements})
