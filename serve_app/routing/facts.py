"""What the router knows of a request."""

import msgspec

from clusters.spec import Task


class Facts(msgspec.Struct, frozen=True, gc=False):
    """Read from the request once. Nothing downstream looks into the body again."""

    model: str
    task: Task | None
    """None: any placement of the model will do (tokenize, detokenize)."""
    stream: bool
    body_bytes: int
    only_site: str | None = None
    """The one site or hosted target that the client allows, for demonstrations and tests."""
    prompt_tokens: int = 0
    """Estimated: four bytes each."""
    max_tokens: int | None = None
    blocks: tuple[int, ...] = ()
    """The prompt's prefix, hashed in a chain: `prefixes.hash_blocks`."""
    session: int | None = None
    """Hash of the session header, salted with the model."""
    tenant: str = ""
    jurisdictions: frozenset[str] | None = None
    """Where it may be processed, by key, model and header together; None means anywhere, empty means nowhere."""
    hosted: str = "any"
    """any, no_retention or never: as `KeySpec.hosted`."""
    policy: str | None = None
    """By header, key or model; None means the fleet's."""
    min_context: int = 0
    """Tokens that the placement's context must hold: set once a shorter one has refused."""

    @property
    def kind(self) -> tuple[object, ...]:
        """Where one of a kind finds no place, none of the others does."""
        places = (self.model, self.task, self.tenant, self.jurisdictions, self.hosted, self.only_site)
        return *places, self.min_context, self.policy
