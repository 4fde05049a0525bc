"""What vLLM's own metrics tell of its KV cache."""

import re
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException

from serve_app.cli.endpoint import FleetUnreachable

MAX_BYTES = 8 * 2**20
TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class CacheConfig:
    kv_tokens: int
    """That it holds."""
    block_tokens: int
    """Of each block: prefixes are shared in whole ones."""


def read_cache_config(url: str) -> CacheConfig:
    """From a `/metrics` of an engine. Raises FleetUnreachable."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310
            text = answer.read(MAX_BYTES).decode(errors="replace")
    except (OSError, HTTPException, ValueError) as error:
        raise FleetUnreachable(f"{url} tells no metrics: {error}") from error
    return parse(text, url)


def parse(metrics: str, url: str) -> CacheConfig:
    """Raises FleetUnreachable, which names `url`."""
    found = re.search(r"^vllm:cache_config_info\{(.*)\}", metrics, re.MULTILINE)
    labels = dict(re.findall(r'(\w+)="([^"]*)"', found[1])) if found else {}
    try:
        return CacheConfig(int(labels["kv_cache_size_tokens"]), int(labels["block_size"]))
    except (KeyError, ValueError):
        raise FleetUnreachable(
            f"{url} has no vllm:cache_config_info with kv_cache_size_tokens and block_size: is it vLLM's own?"
        ) from None
