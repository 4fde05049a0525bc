"""Everything that can go wrong with weights, drawn once.

    WeightsError
    ├── SourceError          what `push` reads is not there or not usable
    ├── InvalidManifest      a manifest that must not be trusted
    ├── StoreError           a store did not do what it was asked
    │   ├── AccessDenied     … because of its credentials
    │   └── NotFound         … because the bucket or object is not there
    ├── Corrupt              bytes that are not those of the manifest
    ├── ReleaseMissing       a store that lacks a release which it should hold
    ├── DiskFull             no room on this machine
    ├── OverBudget           it would cost more than allowed
    ├── Stalled              nothing moves any more
    └── Conflict             somebody else was faster

Constructor arguments are the exception's `args`, so that all of them survive pickling between Ray processes. What third
parties raise is translated where it is caught; no message carries a secret.
"""


class WeightsError(Exception):
    """The root of this tree; as text, one paragraph for people."""


class SourceError(WeightsError):
    """The directory or repository that a model is pushed from can't be used."""


class InvalidManifest(WeightsError):
    """The text is not a manifest, or one that could harm who follows it."""


class StoreError(WeightsError):
    """`operation` at the store `url` failed for `reason`. `hint` says what would help, for instance a permission."""

    def __init__(self, url: str, operation: str, reason: str, hint: str = "") -> None:
        super().__init__(url, operation, reason, hint)
        self.url = url
        self.operation = operation
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.url}: can't {self.operation}: {self.reason}" + (f" ({self.hint})" if self.hint else "")


class AccessDenied(StoreError):
    """The store refused the credentials, or they lack a permission; `hint` names it."""


class NotFound(StoreError):
    """The bucket or the object is not there."""


class Corrupt(WeightsError):
    """The bytes of `file` at `place` (a store's url or a directory) are not those that its manifest promises."""

    def __init__(self, file: str, place: str, reason: str) -> None:
        super().__init__(file, place, reason)
        self.file = file
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.file} at {self.place} is corrupt: {self.reason}"


class ReleaseMissing(WeightsError):
    """The store lacks the release. `command` would bring it there."""

    def __init__(self, model: str, release: str, store: str, command: str) -> None:
        super().__init__(model, release, store, command)
        self.model = model
        self.release = release
        self.store = store
        self.command = command

    def __str__(self) -> str:
        return f"release {self.release} of {self.model} is not in the store {self.store}; run: {self.command}"


class DiskFull(WeightsError):
    """`directory` has no room for `needed` bytes."""

    def __init__(self, directory: str, needed: int) -> None:
        super().__init__(directory, needed)
        self.directory = directory
        self.needed = needed

    def __str__(self) -> str:
        return f"no room in {self.directory} for {self.needed:,} bytes: free some, or choose a larger disk"


class OverBudget(WeightsError):
    """Copying would cost more than the fleet allows without being asked; as text, how much and what would allow it."""


class Stalled(WeightsError):
    """Not one byte moved to or from `place` for `seconds`."""

    def __init__(self, place: str, seconds: float) -> None:
        super().__init__(place, seconds)
        self.place = place
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.place}: no byte moved for {self.seconds:.0f} s; what landed is kept, run it again to go on"


class Conflict(WeightsError):
    """Somebody else changed the same thing at the same time; as text, what it was."""
