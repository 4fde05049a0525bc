"""The stores of sites on this machine, for tests that want the real protocols."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clusters.launch.processes import Run, end
from clusters.launch.stores import LocalStore, start_store
from clusters.spec import MachinesSpec, PoolSpec, Provider, SiteSpec
from clusters.storage import StoreSpec

URLS = {
    Provider.AWS: "s3://test-bucket/some/prefix",
    Provider.GCP: "gs://test-bucket/some/prefix",
    Provider.ONPREM: "s3://test-bucket",
}


def site_of(provider: Provider) -> SiteSpec:
    return SiteSpec(
        name=f"{provider}-site",
        provider=provider,
        region="eu-central-1",
        jurisdiction="eu",
        endpoint="https://site.example.com",
        store=StoreSpec(url=URLS[provider]),
        machines=MachinesSpec(head="machine"),
        pools=(PoolSpec(name="pool", instance_type="machine", usd_per_hour=1),),
    )


@contextmanager
def running(*providers: Provider, directory: Path) -> Iterator[dict[Provider, LocalStore]]:
    """One store for each provider; their processes are gone afterwards."""
    run = Run.new(directory)
    try:
        yield {provider: start_store(run, site_of(provider), directory / provider) for provider in providers}
    finally:
        end(run.id)
