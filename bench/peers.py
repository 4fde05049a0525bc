"""Peers from PyPI, each in an environment of its own, made at its first use."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

INSTALL_TIMEOUT_S = 900


class NotInstalled(Exception):
    """A peer could not be installed. The message ends with what pip said."""


@dataclass(frozen=True, slots=True)
class Peer:
    package: str
    version: str
    extra: str = ""

    @property
    def requirement(self) -> str:
        return f"{self.package}{self.extra}=={self.version}"


def installed(peer: Peer, cache: Path) -> Path:
    """The folder of its commands. Raises NotInstalled."""
    folder = cache.resolve() / f"{peer.package}-{peer.version}"
    done = folder / ".installed"
    if not done.exists():
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", peer.requirement])
        done.touch()
    return folder / "bin"


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"{' '.join(command)}: not done after {INSTALL_TIMEOUT_S} s") from error
    if done.returncode:
        raise NotInstalled(f"{' '.join(command)}\n{done.stderr[-1000:]}")
