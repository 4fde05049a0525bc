"""What every part of `fleet.yaml` is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
PolicyName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")]
HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+(/[^\s]*)?$")]
StoreUrl = Annotated[str, StringConstraints(pattern=r"^(s3|gs|file)://[^\s]+$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]*$")]
ReleaseId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]


class Spec(BaseModel):
    """Frozen, and closed: an unknown field is a mistake, not an extension point."""

    model_config = ConfigDict(extra="forbid", frozen=True)
