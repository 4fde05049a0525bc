"""Ray's fake provider, for Ray's own processes, which has no nodes of the pools that a file names."""

import os
from pathlib import Path
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE

SOLD_OUT = "FAKE_CLOUD_SOLD_OUT"
"""The file's path, one pool in each line."""


class FakeProvider(FakeMultiNodeProvider):  # type: ignore[misc]
    def create_node_with_resources_and_labels(
        self, node_config: Any, tags: dict[str, str], count: int, resources: Any, labels: Any
    ) -> None:
        pool = tags[TAG_RAY_USER_NODE_TYPE]
        if pool in Path(os.environ[SOLD_OUT]).read_text().split():
            raise NodeLaunchException("InsufficientInstanceCapacity", f"no {pool} there", None)
        super().create_node_with_resources_and_labels(node_config, tags, count, resources, labels)
