"""What copying a release takes: bytes, sources, dollars, time. Pure."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from weights.manifest import MANIFEST, File, Manifest


@dataclass(frozen=True)
class Needs:
    """What makes a release exist at a store, each file in one list."""

    copy: tuple[File, ...]
    """Absent there, or of another size."""
    clone: tuple[File, ...]
    """The same, but the store has the bytes elsewhere."""
    verify: tuple[File, ...]
    """There with the right size, but no marker vouches for the bytes: an earlier run was cut short."""
    keep: tuple[File, ...]
    publish: bool
    """The marker is missing, so it is written once all the files are right."""

    @property
    def size(self) -> int:
        """Bytes to be right in the store when it is done, that no marker vouches for now."""
        return sum(file.size for file in self.copy + self.clone + self.verify)


def needs(manifest: Manifest, stored: Mapping[str, int], clones: Mapping[str, str]) -> Needs:
    """`stored` has the size of what lies under the release at the store, by path; `clones` keys of the same bytes."""
    vouched = MANIFEST in stored
    there = [file for file in manifest.files if stored.get(file.path) == file.size]
    lacking = [file for file in manifest.files if stored.get(file.path) != file.size]
    return Needs(
        copy=tuple(file for file in lacking if file.path not in clones),
        clone=tuple(file for file in lacking if file.path in clones),
        verify=() if vouched else tuple(there),
        keep=tuple(there) if vouched else (),
        publish=not vouched,
    )


@dataclass(frozen=True)
class Inventory:
    """What a site's store holds, as far as one release is concerned."""

    site: str
    stored: Mapping[str, int]
    """Bytes by path of what lies under the release, complete or not."""
    clones: Mapping[str, str]
    """Keys of objects with the same bytes as files of the release, by the files' path."""
    free: int | None
    """Bytes that still fit, where someone counts."""

    @property
    def published(self) -> bool:
        return MANIFEST in self.stored


@dataclass(frozen=True)
class SitePlan:
    """What will happen at one site. `usd` is of egress; `seconds` is None where no bandwidth is set."""

    site: str
    source: str | None
    """Whose store the bytes come from; it may itself still wait for them. None where nothing is sent."""
    needs: Needs
    usd: float
    seconds: float | None
    problem: str = ""
    """Why it can't be done."""

    @property
    def sent(self) -> int:
        """Bytes that cross the network."""
        return sum(file.size for file in self.needs.copy)


Price = Callable[[str, str], float]
"""USD per GB from one site's store into another's, everything on the way included."""


def plan(
    manifest: Manifest, wanted: Collection[Inventory], holders: Collection[str], price: Price, bytes_per_s: float | None
) -> tuple[SitePlan, ...]:
    """One plan for each inventory, in an order in which every source has the release when its turn comes.

    `holders` are sites whose stores have it now.
    """
    inventories = {inventory.site: inventory for inventory in wanted}
    plans = []
    for site, source in sources(inventories.keys(), holders, price):
        inventory = inventories[site]
        todo = needs(manifest, inventory.stored, inventory.clones)
        sent = sum(file.size for file in todo.copy)
        usd = sent / 1e9 * price(source, site) if source is not None else 0.0
        seconds = sent / bytes_per_s if bytes_per_s else None
        plans.append(SitePlan(site, source if sent else None, todo, usd, seconds, _problem(todo, inventory, source)))
    return tuple(plans)


def sources(wanting: Collection[str], holders: Collection[str], price: Price) -> list[tuple[str, str | None]]:
    """Each site with where it gets a release from, so that all together pay least: the cheapest edge from any site that
    has it, or will have it by then, comes first. Sites that have it come without a source; without holders all do.
    """
    have = list(holders)
    order: list[tuple[str, str | None]] = [(site, None) for site in wanting if site in holders]
    rest = [site for site in wanting if site not in holders]
    while rest and have:
        # At the same price from one that has it now, since then nobody waits.
        edges = ((price(source, site), source not in holders, site, source) for site in rest for source in have)
        _, _, site, source = min(edges)
        order.append((site, source))
        rest.remove(site)
        have.append(site)
    return order + [(site, None) for site in rest]


def _problem(todo: Needs, inventory: Inventory, source: str | None) -> str:
    if todo.copy and source is None:
        return "no store has it"
    lacking = sum(file.size for file in todo.copy + todo.clone)
    if inventory.free is not None and lacking > inventory.free:
        return f"{lacking:,} bytes are needed, {inventory.free:,} are free"
    return ""
