"""`python -m bench.batching.site FLEET PORT TEMP`: a fleet's first site on a small Ray cluster of its own, by its own
Serve applications but the replicator. Prints a line once it serves, and ends with its standard input."""

import json
import sys
from importlib import import_module

import ray
from ray import serve

from clusters.render import REPLICATOR_APP, site_config
from clusters.spec import FleetSpec

CPUS = 4
"""As Ray counts: two for models, the others for what serves them."""


def main() -> None:
    fleet = FleetSpec.model_validate(json.loads(sys.argv[1]))
    port = int(sys.argv[2])
    site = fleet.sites[0]
    resources = {pool.resource: 1.0 for pool in site.pools}
    # Not one of the clusters that may run here already.
    ray.init(
        address="local",
        num_cpus=CPUS,
        resources=resources,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=sys.argv[3],
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        for app in site_config(fleet, site, "127.0.0.1", port)["applications"]:
            if app["name"] != REPLICATOR_APP:
                module, _, function = app["import_path"].partition(":")
                build = getattr(import_module(module), function)
                serve.run(build(app["args"]), name=app["name"], route_prefix=app["route_prefix"])
        print("serving", flush=True)
        sys.stdin.read()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
