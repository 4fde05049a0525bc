"""Starts a Ceph of one disk with a RADOS gateway, for the contracts: `python -m tests.contracts.ceph DIRECTORY`.

Needs Debian's ceph-mon, ceph-mgr, ceph-osd, ceph-common and radosgw. Prints the variable that names the gateway, and
runs until it is interrupted; nothing of it outlives that but the directory.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from clusters.launch.processes import Run, clean_environment, end, free_port, is_free, spawn, wait_until
from clusters.launch.stores import AwsKey
from tests.contracts.conftest import CEPH

HOST = "127.0.0.1"
START_TIMEOUT_S = 120
DISK_BYTES = 16 * 2**30
CONFIG = """\
[global]
fsid = {cluster}
mon host = v2:{host}:{monitor}
keyring = {directory}/keyring
run dir = {directory}
admin socket = {directory}/$name.asok
log file = {directory}/$name.log
ms bind ipv6 = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 1
[mon]
mon data = {directory}/mon
[mgr]
mgr data = {directory}/mgr
[osd]
osd data = {directory}/osd
bluestore block size = {disk}
osd memory target = 939524096
[client]
rgw data = {directory}/rgw
rgw frontends = beast endpoint={host}:{gateway}
"""
"""Sparse disk, one copy, everything on loopback; tests need no more."""


KEYS = {
    "mon.": ("mon",),
    "client.admin": ("mon", "osd", "mgr"),
    "mgr.x": ("mon", "osd"),
    "osd.0": ("mon", "osd", "mgr"),
}
"""Who may do everything at which parts."""


@contextmanager
def running_ceph(directory: Path) -> Iterator[tuple[str, AwsKey]]:
    """The gateway's endpoint and a key for it, of a Ceph in a new directory. Raises LaunchError, CalledProcessError."""
    for name in ("mon", "mgr", "osd", "rgw"):
        (directory / name).mkdir(parents=True)
    values = {"host": HOST, "directory": directory, "disk": DISK_BYTES, "cluster": uuid4()}
    gateway, monitor = free_port(HOST), free_port(HOST)
    (directory / "ceph.conf").write_text(CONFIG.format(gateway=gateway, monitor=monitor, **values))
    (directory / "keyring").touch(0o600)
    for name, parts in KEYS.items():
        caps = [text for part in parts for text in ("--cap", part, "allow *")]
        _do(directory, "ceph-authtool", f"{directory}/keyring", "--gen-key", f"--name={name}", *caps)
    run, key = Run.new(directory), AwsKey.new()
    try:
        _start_disk(run, directory, f"v2:{HOST}:{monitor}")
        user = ("--uid=contracts", "--display-name=contracts", f"--access-key={key.id}", f"--secret={key.secret}")
        _do(directory, "radosgw-admin", "user", "create", *user)
        gateway_process = _spawn(run, directory, "radosgw", "--name=client.admin")
        wait_until(run, "radosgw", lambda: not is_free(gateway, HOST), gateway_process, START_TIMEOUT_S)
        yield f"http://{HOST}:{gateway}", key
    finally:
        end(run.id)


def _start_disk(run: Run, directory: Path, monitor: str) -> None:
    disk = str(uuid4())
    _do(directory, "ceph-mon", "--id=a", "--mkfs", f"--public-addr={monitor}")
    _spawn(run, directory, "ceph-mon", "--id=a", f"--public-addr={monitor}")
    _do(directory, "ceph", "osd", "new", disk)
    _spawn(run, directory, "ceph-mgr", "--id=x")
    _do(directory, "ceph-osd", "--id=0", "--mkfs", f"--osd-uuid={disk}")
    _spawn(run, directory, "ceph-osd", "--id=0")


def _spawn(run: Run, directory: Path, program: str, *arguments: str) -> subprocess.Popen[bytes]:
    argv = [program, f"--conf={directory}/ceph.conf", "-f", *arguments]
    return spawn(run, program, argv, clean_environment())


def _do(directory: Path, program: str, *arguments: str) -> None:
    """Those that speak to the cluster wait until it is there."""
    argv = [program, f"--conf={directory}/ceph.conf", *arguments]
    subprocess.run(argv, check=True, timeout=START_TIMEOUT_S, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="a new one; needs some GiB")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with running_ceph(parser.parse_args().directory.absolute()) as (endpoint, key):
        sys.stdout.write(f"{CEPH}={endpoint},{key.id},{key.secret}\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main()
