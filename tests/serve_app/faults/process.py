"""A gateway in a process of its own: `python -m … <fleet as JSON>`. It serves until its standard input ends."""

import sys
import threading
import time
from pathlib import Path

import uvicorn

from clusters.spec import FleetSpec
from serve_app.gateway import Gateway


def main(spec: FleetSpec) -> None:
    secrets = dict.fromkeys((site.name for site in spec.sites), "site-token")
    app = Gateway(spec, secrets, host="127.0.0.1").app
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="on", log_level="error", loop="uvloop"))
    threading.Thread(target=leash, args=(server,), daemon=True).start()
    server.run()


def leash(server: uvicorn.Server) -> None:
    while not server.started:
        time.sleep(0.05)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.should_exit = True


if __name__ == "__main__":
    main(FleetSpec.model_validate_json(Path(sys.argv[1]).read_text()))
