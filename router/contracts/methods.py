"""How a student learns from its teacher: the methods that a policy may name, each with its settings."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

DivergenceKind = Literal["forward", "reverse", "jsd", "skewed", "skewed-reverse"]
Share = Annotated[float, Field(ge=0, le=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]


def _listed(value: Any) -> Any:
    """``20,12``, as it is written in a command, is a list."""
    return value.split(",") if isinstance(value, str) else value


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HardLabelSettings(_Settings):
    """The teacher's text, token by token."""

    name: Literal["hard-label"] = "hard-label"


class ReasoningSettings(_Settings):
    """The teacher's answer, and beside it what it thought before: asked for by ``marker`` in the prompt, so that the
    student answers at once where that is absent. ``weight``: what thinking counts beside answering."""

    name: Literal["reasoning"] = "reasoning"
    marker: str = Field("Think step by step, then answer.", min_length=1)
    weight: float = Field(1.0, gt=0)


class SoftLabelSettings(_Settings):
    """The teacher's distribution at each token, at ``mix``, and its token at the rest.

    ``teacher``: a folder with an open-weight model; the URL of a vLLM server (``http://host:8000/v1``); or
    ``recorded``, the likeliest tokens that came with its answers. ``mixed`` is β of ``jsd`` and α of the skewed
    divergences. Of a server and of records only ``top`` tokens' probabilities at most are known, at temperature 1;
    ``rest`` says what becomes of the others. ``alignment``: ``exact`` lets a recorded teacher have another tokenizer:
    its tokens count where one of the student's has the same text. ``api_key_env`` names the environment variable
    that holds the server's key.
    """

    name: Literal["soft-label"] = "soft-label"
    teacher: str = Field(min_length=1)
    divergence: DivergenceKind = "forward"
    mixed: Inside = 0.5
    temperature: float = Field(1.0, gt=0)
    mix: Share = 0.5
    rest: Literal["tail", "sampled", "truncated"] = "tail"
    top: int = Field(20, gt=0, le=200)
    alignment: Literal["exact"] | None = None
    api_key_env: str | None = None


class OnPolicySettings(_Settings):
    """What the student says itself, scored by an open-weight teacher in the folder ``teacher``.

    ``share`` of a step's rows get an answer of the student's, drawn at ``sampling_temperature``, of ``max_new_tokens``
    at most; the others keep the teacher's.
    """

    name: Literal["on-policy"] = "on-policy"
    teacher: str = Field(min_length=1)
    share: Share = 0.5
    divergence: DivergenceKind = "jsd"
    mixed: Inside = 0.5
    sampling_temperature: float = Field(1.0, gt=0)
    max_new_tokens: int = Field(128, gt=0)


class FeatureSettings(_Settings):
    """The hidden states of an open-weight teacher in the folder ``teacher``, beside its soft labels.

    ``layers``: pairs of a student's and a teacher's layer, counted from 1; None maps every layer of the student evenly
    onto the teacher's. ``weight``: what the mean distance counts beside the soft labels, which are as in soft-label.
    """

    name: Literal["feature"] = "feature"
    teacher: str = Field(min_length=1)
    layers: tuple[tuple[int, int], ...] | None = None
    weight: float = Field(1.0, gt=0)
    divergence: DivergenceKind = "forward"
    mixed: Inside = 0.5
    temperature: float = Field(1.0, gt=0)
    mix: Share = 0.5


class ProgressiveSettings(_Settings):
    """A chain of shrinking students, ``layers`` deep one after another, each taught by the last with soft labels.

    The first is taught by the student given, unless it is as deep: then it is that one, taught by the teacher's text.
    ``keep``: which layers stay, ``even`` or those that change what passes through them most (``influence``).
    """

    name: Literal["progressive"] = "progressive"
    layers: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1), BeforeValidator(_listed)]
    keep: Literal["even", "influence"] = "even"
    divergence: DivergenceKind = "forward"
    mixed: Inside = 0.5
    temperature: float = Field(1.0, gt=0)
    mix: Share = 0.5

    @model_validator(mode="after")
    def _shrinks(self) -> Self:
        if any(after >= before for before, after in pairwise(self.layers)):
            raise ValueError("layers: each student of the chain must have fewer than the last")
        return self


class ConfidenceSettings(_Settings):
    """The teacher's text, and doubt where the student gets it wrong. ``doubt``: every token alike, at that share."""

    name: Literal["confidence"] = "confidence"
    doubt: Share = 0.1


MethodSettings = Annotated[
    HardLabelSettings
    | ReasoningSettings
    | SoftLabelSettings
    | OnPolicySettings
    | FeatureSettings
    | ProgressiveSettings
    | ConfidenceSettings,
    Field(discriminator="name"),
]
