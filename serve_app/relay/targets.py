"""Where requests can go: the fleet's sites and hosted targets, with their addresses and their secrets."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from clusters.spec import FleetSpec, HostedSpec, Protocol

ANTHROPIC_VERSION = b"2023-06-01"


@dataclass(frozen=True, slots=True)
class Target:
    """One of them. `own_headers` hold its secret."""

    name: str
    host: str
    port: int
    tls: ssl.SSLContext | None
    base: bytes
    """Path before a route."""
    own_headers: bytes = field(repr=False)
    hosted: HostedSpec | None = None


class MissingSecrets(Exception):
    """The environment lacks tokens of sites or keys of hosted targets."""


def secrets(spec: FleetSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """By target. Raises MissingSecrets, which names every variable."""
    variables = {site.name: site.token_variable for site in spec.sites}
    variables |= {hosted.name: hosted.key_env for hosted in spec.hosted}
    missing = [variable for variable in variables.values() if not environ.get(variable)]
    if missing:
        raise MissingSecrets(f"set {', '.join(missing)} in the environment of every node of the ingress's Ray cluster")
    return {name: environ[variable] for name, variable in variables.items()}


def targets(spec: FleetSpec, secret: Mapping[str, str]) -> dict[str, Target]:
    tls = ssl.create_default_context()
    sites = [_target(site.name, site.endpoint, _bearer(secret[site.name]), tls) for site in spec.sites]
    hosted = [_target(each.name, each.url, _hosted_headers(each, secret[each.name]), tls, each) for each in spec.hosted]
    return {target.name: target for target in (*sites, *hosted)}


def _target(name: str, url: str, own_headers: bytes, tls: ssl.SSLContext, hosted: HostedSpec | None = None) -> Target:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    return Target(
        name=name,
        host=parts.hostname or "",
        port=parts.port or (443 if secure else 80),
        tls=tls if secure else None,
        base=parts.path.rstrip("/").encode(),
        own_headers=b"host: %b\r\n" % parts.netloc.rpartition("@")[2].encode() + own_headers,
        hosted=hosted,
    )


def _bearer(secret: str) -> bytes:
    return b"authorization: Bearer %b\r\n" % secret.encode()


def _hosted_headers(hosted: HostedSpec, key: str) -> bytes:
    if hosted.protocol is Protocol.ANTHROPIC:
        return b"x-api-key: %b\r\nanthropic-version: %b\r\n" % (key.encode(), ANTHROPIC_VERSION)
    return _bearer(key)
