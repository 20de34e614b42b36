"""What a policy may say of learning: when a round starts, how a student learns from its teacher, what that costs."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from router.contracts.prices import Price
from router.contracts.records import Rights
from router.policy.objective import BaseUrl

DivergenceKind = Literal["forward", "reverse", "jsd", "skewed", "skewed-reverse"]
Share = Annotated[float, Field(ge=0, le=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]


def _listed(value: Any) -> Any:
    """``20,12``, as it is written in a command, is a list."""
    return value.split(",") if isinstance(value, str) else value


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class HardLabelSettings(_Settings):
    """The teacher's text, token by token."""

    name: Literal["hard-label"] = "hard-label"


class ReasoningSettings(_Settings):
    """The teacher's answer, and beside it what it thought before, where that is asked for; else the student answers at
    once."""

    name: Literal["reasoning"] = "reasoning"
    marker: str = Field("Think step by step, then answer.", min_length=1)
    """What asks for it, in the prompt."""
    weight: float = Field(1.0, gt=0)
    """What thinking counts beside answering."""


class SoftLabelSettings(_Settings):
    """The teacher's distribution at each token, at ``mix``, and its token at the rest."""

    name: Literal["soft-label"] = "soft-label"
    teacher: str = Field(min_length=1)
    """A folder with an open-weight model; the URL of a vLLM server (``http://host:8000/v1``); or ``recorded``, the
    likeliest tokens that came with its answers."""
    divergence: DivergenceKind = "forward"
    """How two distributions are compared: Kullback-Leibler ``forward``, ``reverse`` or skewed, or Jensen-Shannon."""
    mixed: Inside = 0.5
    """β of ``jsd``, α of the skewed divergences."""
    temperature: float = Field(1.0, gt=0)
    """Both distributions are softened by it."""
    mix: Share = 0.5
    """What the soft labels count; the teacher's text has the rest."""
    rest: Literal["tail", "sampled", "truncated"] = "tail"
    """What becomes of tokens beyond ``top``: one bucket (``tail``), the token that the teacher drew stands for them
    (``sampled``), or they are forgotten (``truncated``)."""
    top: int = Field(20, gt=0, le=200)
    """Of a server and of records only so many tokens' probabilities are known at most, at temperature 1."""
    alignment: Literal["exact"] | None = None
    """``exact`` lets a recorded teacher have another tokenizer: its tokens count where one of the student's has the
    same text."""
    api_key_env: str | None = None
    """The environment variable that holds the server's key."""


class OnPolicySettings(_Settings):
    """What the student says itself, scored by an open-weight teacher."""

    name: Literal["on-policy"] = "on-policy"
    teacher: str = Field(min_length=1)
    """A folder with an open-weight model."""
    share: Share = 0.5
    """The share of a step's rows that get an answer of the student's; the others keep the teacher's."""
    divergence: DivergenceKind = "jsd"
    """How two distributions are compared: Kullback-Leibler ``forward``, ``reverse`` or skewed, or Jensen-Shannon."""
    mixed: Inside = 0.5
    """β of ``jsd``, α of the skewed divergences."""
    sampling_temperature: float = Field(1.0, gt=0)
    """At which the student's answers are drawn."""
    max_new_tokens: int = Field(128, gt=0)
    """How long those are at most."""


class FeatureSettings(_Settings):
    """The hidden states of an open-weight teacher, beside its soft labels."""

    name: Literal["feature"] = "feature"
    teacher: str = Field(min_length=1)
    """A folder with an open-weight model."""
    layers: tuple[tuple[int, int], ...] | None = None
    """Pairs of a student's and a teacher's layer, counted from 1; null maps every layer of the student evenly onto the
    teacher's."""
    weight: float = Field(1.0, gt=0)
    """What the mean distance counts beside the soft labels."""
    divergence: DivergenceKind = "forward"
    """How two distributions are compared: Kullback-Leibler ``forward``, ``reverse`` or skewed, or Jensen-Shannon."""
    mixed: Inside = 0.5
    """β of ``jsd``, α of the skewed divergences."""
    temperature: float = Field(1.0, gt=0)
    """Both distributions are softened by it."""
    mix: Share = 0.5
    """What the soft labels count; the teacher's text has the rest."""


class ProgressiveSettings(_Settings):
    """A chain of shrinking students, each taught by the last with soft labels.

    The first is taught by the student given, unless it is as deep: then it is that one, taught by the teacher's text.
    """

    name: Literal["progressive"] = "progressive"
    layers: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1), BeforeValidator(_listed)]
    """How deep each student of the chain is, such as 20,12."""
    keep: Literal["even", "influence"] = "even"
    """Which layers stay: every so many, or those that change what passes through them most (``influence``)."""
    divergence: DivergenceKind = "forward"
    """How two distributions are compared: Kullback-Leibler ``forward``, ``reverse`` or skewed, or Jensen-Shannon."""
    mixed: Inside = 0.5
    """β of ``jsd``, α of the skewed divergences."""
    temperature: float = Field(1.0, gt=0)
    """Both distributions are softened by it."""
    mix: Share = 0.5
    """What the soft labels count; the teacher's text has the rest."""

    @model_validator(mode="after")
    def _shrinks(self) -> Self:
        if any(after >= before for before, after in pairwise(self.layers)):
            raise ValueError("layers: each student of the chain must have fewer than the last")
        return self


class ConfidenceSettings(_Settings):
    """The teacher's text, and doubt where the student gets it wrong."""

    name: Literal["confidence"] = "confidence"
    doubt: Share = 0.1
    """The share that is spread over every token alike."""


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


class Gate(BaseModel):
    """What a candidate must show on audited traffic before it may serve.

    A smaller margin or a higher confidence needs more audits to promote anything.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    margin: float = Field(0.02, gt=0, lt=1)
    """The loss of acceptable answers, as a share of requests, that still counts as none."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """It must be shown at this confidence that the candidate loses no more."""
    min_slice: int = Field(20, gt=0)
    """The smallest slice of the traffic, in requests, that may veto."""


class Synthetic(BaseModel):
    """Requests that the teacher writes and answers for kinds of traffic that are thin or that the student fails at."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    usd: Decimal = Field(Decimal(0), ge=0)
    """What a round may spend on it at most; 0: nothing is written."""
    per_cluster: int = Field(50, gt=0)
    """A kind with fewer rows to train on is thin, and is filled up to so many; one that the student fails at gets so
    many more."""


class LabelTeacher(_Settings):
    """Who answers the logged prompts again, to be learnt from where the served teacher's own answers may not be.

    Certificates stay against the served teacher: audited requests are never sent to the label teacher.
    """

    model: str = Field(min_length=1)
    """A litellm model string; with ``url``, as the server there calls it."""
    url: BaseUrl | None = None
    """Any OpenAI-compatible server, such as vLLM with open weights."""
    api_key_env: str | None = None
    """The environment variable that holds its key. OpenAI's has its usual name where none is given."""
    usd_per_million: Price | None = None
    """Overrides litellm's price map, and is needed where the map lacks the model. ``tiers: {batch: …}`` says what it
    costs in batches; without that they are reckoned at the usual price."""
    training_rights: Rights
    """May its answers be trained on, by its licence or its terms? Your word, which the ledger keeps; anything but
    ``allowed`` is an error here."""
    batch: bool = False
    """Asks it by its API's batches (OpenAI's, and who has the same), which cost less and may take a day; a server
    without them is asked call by call."""
    usd_per_round: Decimal = Field(Decimal(2), ge=0)
    """What a round may spend on it at most; what is left over is asked in the next one."""
    concurrency: int = Field(8, gt=0, le=512)
    """How many calls are under way at once."""
    timeout_seconds: float = Field(120.0, gt=0)
    """How long one answer may take, in seconds; a batch has its own day."""

    @field_validator("training_rights")
    @classmethod
    def may_be_learnt_from(cls, rights: Rights) -> Rights:
        if rights is not Rights.ALLOWED:
            raise ValueError(
                f"a label teacher is there to be learnt from, and its answers may not be trained on ({rights.value}): "
                "name one that allows it, such as open weights under Apache-2.0 or MIT on a server of yours"
            )
        return rights

    @property
    def place(self) -> str:
        """Where its answers come from, as the ledger names it."""
        return self.url or "its provider"


class TrialSettings(BaseModel):
    """What a new student does before it is made live: it serves beside the live one.

    The gate's tests, at the margin that so many audits resolve, keep it or roll it back. It is rolled back at once
    where its server fails repeatedly or its own audits prove parity broken.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    share: float = Field(0.1, ge=0, le=0.5)
    """The share of the conversations that it serves; 0: what passed the gate is live at once."""
    audit_rate: float = Field(0.2, ge=0, le=1)
    """The share of those that is audited, if that is more than usual (within ``audit.usd_per_day``)."""
    min_audits: int = Field(100, gt=0)
    """After so many audits the live student is asked the same, and the gate's test decides."""
    max_hours: float = Field(24.0, gt=0)
    """After so many hours it decides by what there is."""


class Distil(BaseModel):
    """When and how the unattended cycle makes a better student."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    min_new_records: int = Field(500, gt=0)
    """A round starts once so many trainable records are there that no bundle was trained on."""
    epochs: float = Field(3.0, gt=0)
    """How often a training sees each row."""
    soup: int = Field(1, ge=1)
    """How often the student is trained, each time in another order; it gets the mean of the weights."""
    learning_rate: float = Field(2e-4, gt=0)
    """The optimiser's, at its highest."""
    batch_size: int = Field(32, gt=0)
    """Rows a step."""
    max_tokens: int = Field(1024, gt=0)
    """Tokens of a row; a longer one is not trained on."""
    patience: int = Field(0, ge=0)
    """A training ends after so many dev losses that were no better than the best one, whose weights are kept; 0: never
    early."""
    tuning: Literal["auto", "full", "lora"] = "auto"
    """All weights, or adapters that are merged into them; ``auto``: adapters from a billion weights on."""
    method: MethodSettings = HardLabelSettings()
    """How the student learns from the teacher, with that method's own settings."""
    replay: float = Field(0.1, ge=0, le=1)
    """The share of a full round's rows that stays with what the live student was trained on."""
    usd_per_hour: Decimal = Field(Decimal(0), ge=0)
    """What an hour of the training machine costs; it counts against the saving."""
    payback_days: float = Field(90.0, gt=0)
    """Where a round costs something, ``watch`` starts none that is not expected to pay itself back by what it saves
    within so many days."""
    labels_from: LabelTeacher | None = None
    """Whose answers are trained on where the served teacher's may not be; null: nobody else's."""
    synthetic: Synthetic = Synthetic()
    """What the teacher writes where traffic is thin."""
    gate: Gate = Gate()
    """What a candidate must show before it may serve."""
    canary: TrialSettings | None = TrialSettings()
    """How a new student is tried on live traffic before it takes the place of a live bundle; null: not at all."""

    @property
    def trial(self) -> TrialSettings | None:
        """The canary's settings; None where there is none."""
        return self.canary if self.canary is not None and self.canary.share else None
