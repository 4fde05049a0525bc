"""Where weights lie and how they are copied: the parts of `fleet.yaml` that `weights` reads."""

from enum import StrEnum

from pydantic import Field

from clusters.fields import HttpUrl, Name, Spec, StoreUrl


class StoreSpec(Spec):
    """An object store, and which credentials open it. No secret is ever written here."""

    url: StoreUrl = Field(description="s3://bucket/prefix, gs://bucket/prefix or file:///directory")
    endpoint: HttpUrl | None = Field(
        None, description="of an S3-compatible or GCS server; unset means the provider's own"
    )
    region: str | None = Field(None, description="S3 signing region; unset means the profile's")
    profile: str | None = Field(
        None, description="s3: profile in the AWS credentials file; unset means the normal chain"
    )
    credentials_file: str | None = Field(
        None, description="gs: path of a service-account JSON file; unset means application default credentials"
    )


class Verify(StrEnum):
    """How much of a copy is read back from the store before the release exists there."""

    FULL = "full"
    SAMPLED = "sampled"
    """The first, the last and every 16th part of each file."""
    OFF = "off"
    """What the store says of sizes is believed."""


class CacheSpec(Spec):
    """The releases on a node's disk: all of `weights` that an engine goes by."""

    cache_dir: str = Field("/var/cache/rayfleet", description="node-local directory that engines load from")
    cache_gb: float | None = Field(
        None, gt=0, description="GB that a node may keep of releases; unset means all but a tenth of its disk"
    )
    parallel_parts: int = Field(
        8, ge=1, le=64, description="parts of 16 MiB in flight per site; copying holds each in memory"
    )

    @property
    def cache_bytes(self) -> int | None:
        """Of `cache_gb`."""
        return None if self.cache_gb is None else int(self.cache_gb * 1e9)


class WeightsSpec(CacheSpec):
    """Where releases are pushed first, and how they are copied on."""

    home: Name = Field(description="the site whose store receives `rayfleet weights push`")
    bandwidth_mbps: float | None = Field(
        None, gt=0, description="Mbit/s that copying to one site may take; unset means no limit"
    )
    budget_usd: float = Field(100, ge=0, description="USD of egress above which `replicate` asks for --yes")
    verify: Verify = Field(Verify.FULL, description="what is read back of a copy: full, sampled or off")
    interval_s: float = Field(30, gt=0, description="seconds between two looks of a site's replicator")
