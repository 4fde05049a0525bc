"""How fast one replica's engine is: what a step takes, and how many tokens its KV cache holds."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from autoscaling.simulate.errors import BadModel
from clusters.fields import Spec


class EngineModel(Spec):
    """A step that decodes for `b` sequences, whose contexts have `k` tokens in all, takes in `n` requests and reads `p`
    prompt tokens, which attend to `a` tokens before them in all, takes `step_s + b * sequence_s + k * kv_token_s +
    n * admission_s + p * prefill_token_s + a * attention_s`."""

    version: Literal[1] = 1
    source: str = Field(description="where the figures come from: a measurement, or what was assumed")
    step_s: float = Field(gt=0, description="seconds of any step: reading the weights, launching kernels")
    sequence_s: float = Field(0, ge=0, description="seconds per sequence that decodes")
    kv_token_s: float = Field(0, ge=0, description="seconds per token of their contexts")
    admission_s: float = Field(0, ge=0, description="seconds per request that a step takes in: its input, its place")
    prefill_token_s: float = Field(ge=0, description="seconds per prompt token")
    attention_s: float = Field(0, ge=0, description="seconds per pair of a prompt token and one before it")
    request_s: float = Field(0, ge=0, description="seconds of a request beside all steps: HTTP, tokenizing")
    kv_tokens: int = Field(ge=1, description="tokens that the KV cache holds")

    def decode_s(self, sequences: int, tokens: int) -> float:
        """Of one step without prefill."""
        return self.step_s + sequences * self.sequence_s + tokens * self.kv_token_s

    def prefill_s(self, requests: int, tokens: int, pairs: float) -> float:
        """That a step takes longer for requests that it takes in, and for prompt tokens that it reads."""
        return requests * self.admission_s + tokens * self.prefill_token_s + pairs * self.attention_s

    def alone_s(self, prompt_tokens: int) -> float:
        """To the first token of a request that finds the engine idle and its prompt fitting one step."""
        return self.request_s + self.step_s + self.prefill_s(1, prompt_tokens, pairs(0, prompt_tokens))


def pairs(before: int, tokens: int) -> float:
    """Of each of so many tokens with all before it, when so many were there already."""
    return tokens * (before + tokens / 2)


def load_model(path: Path) -> EngineModel:
    """As `rayfleet calibrate` writes it. Raises BadModel."""
    try:
        return EngineModel.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadModel(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        raise BadModel(f"{path}, field {field}: {first['msg']}") from error


def save_model(model: EngineModel, path: Path) -> None:
    path.write_text(model.model_dump_json(indent=2) + "\n")
