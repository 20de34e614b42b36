"""What a policy may say of learning: when a round starts, how a student is trained, what that costs."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from router.contracts.methods import HardLabelSettings, MethodSettings


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
    tuning: Literal["full", "lora"] = "full"
    """All weights, or adapters that are merged into them."""
    method: MethodSettings = HardLabelSettings()
    """How the student learns from the teacher, with that method's own settings."""
    replay: float = Field(0.1, ge=0, le=1)
    """The share of a full round's rows that stays with what the live student was trained on."""
    usd_per_hour: Decimal = Field(Decimal(0), ge=0)
    """What an hour of the training machine costs; it counts against the saving."""
    payback_days: float = Field(90.0, gt=0)
    """Where a round costs something, ``watch`` starts none that is not expected to pay itself back by what it saves
    within so many days."""
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
