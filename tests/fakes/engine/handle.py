"""Starts an engine process, tells it what to do, asks what it saw, and ends it."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from tests.fakes.engine.control import BEHAVIOUR, FAULTS, FLAPPING, SEEN
from tests.fakes.engine.faults import Behaviour, Fault, Flapping, Seen

ROOT = Path(__file__).resolve().parents[3]
CONTROL_TIMEOUT_S = 60


@dataclass
class Engine:
    """One site in its own process, for the length of a `with`. Orders are obeyed when the call returns."""

    name: str = "east"
    models: Sequence[str] = ("chat", "embed")
    token: str = "site-token"
    release: str = "0" * 12
    behaviour: Behaviour = field(default_factory=Behaviour)
    port: int = 0
    """0: a free one."""

    def __post_init__(self) -> None:
        self._control = 0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Raises RuntimeError when it does not run."""
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run")
        return self._process.pid

    # The process

    def start(self) -> None:
        """On the same port as before, with the same behaviour, and without a memory."""
        command = [sys.executable, "-m", "tests.fakes.engine", "--leashed", "--port", str(self.port)]
        options = {"name": self.name, "models": ",".join(self.models), "token": self.token, "release": self.release}
        command += [f"--{option}={value}" for option, value in options.items()]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        ports = json.loads(self._process.stdout.readline())
        self.port, self._control = ports["port"], ports["control"]
        self._order("/behaviour", BEHAVIOUR.dump_json(self.behaviour))

    def kill(self) -> None:
        """With SIGKILL, so that the kernel closes its connections."""
        if process := self._process:
            process.kill()
            process.communicate()
            self._process = None

    def pause(self) -> None:
        """The kernel still accepts connections; nothing is answered, `seen` neither."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    # What it does

    def plan(self, *faults: Fault) -> None:
        """For the next requests, one each."""
        self._order("/plan", FAULTS.dump_json(faults))

    def always(self, fault: Fault) -> None:
        """For all requests without a planned fault."""
        self.behave(otherwise=fault)

    def behave(self, **changes: Any) -> None:
        """Changes fields of its Behaviour."""
        self.behaviour = replace(self.behaviour, **changes)
        self._order("/behaviour", BEHAVIOUR.dump_json(self.behaviour))

    def down(self) -> None:
        """Drops all connections and refuses new ones."""
        self._order("/down")

    def up(self) -> None:
        self._order("/up")

    def flap(self, *, down_s: float, up_s: float, for_s: float) -> None:
        """Down and up by turns, in the background."""
        self._order("/flap", FLAPPING.dump_json(Flapping(down_s, up_s, for_s)))

    def drop(self) -> None:
        """Drops all connections."""
        self._order("/drop")

    def heal(self) -> None:
        """As new: no plan, no memory, no peculiarity."""
        self.up()
        self.forget()
        self.behaviour = Behaviour()
        self._order("/behaviour", BEHAVIOUR.dump_json(self.behaviour))

    # What it saw

    def seen(self) -> Seen:
        return SEEN.validate_json(self._order("/seen"))

    def forget(self) -> None:
        """What it saw and what was planned, not how it behaves."""
        self._order("/forget")

    def _order(self, path: str, body: bytes = b"") -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._control, timeout=CONTROL_TIMEOUT_S)
        try:
            connection.request("POST", path, body)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        assert response.status == 200, f"{self.name} does not know {path}"
        return answer
