"""What a policy may say of learning: when a round starts, how a student is trained, what that costs."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from router.contracts.methods import HardLabelSettings, MethodSettings


class Gate(BaseModel):
    """What a candidate must show on audited traffic before it may serve.

    ``margin``: the loss of acceptable answers, as a share of requests, that still counts as none; it must be shown,
    at ``confidence``, that the candidate loses no more. ``min_slice``: the smallest slice of the traffic, in
    requests, that may veto. A smaller margin or a higher confidence needs more audits to promote anything.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    margin: float = Field(0.02, gt=0, lt=1)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    min_slice: int = Field(20, gt=0)


class Synthetic(BaseModel):
    """Requests that the teacher writes and answers for kinds of traffic that are thin or that the student fails at.

    ``usd``: what a round may spend on it at most; 0: nothing is written. A kind with fewer than ``per_cluster`` rows
    to train on is thin, and is filled up to so many; one that the student fails at gets so many more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    usd: Decimal = Field(Decimal(0), ge=0)
    per_cluster: int = Field(50, gt=0)


class Canary(BaseModel):
    """What a new student does before it is made live: it serves a ``share`` of the conversations beside the live one.

    Of those, ``audit_rate`` is audited if that is more than usual (within ``audit.usd_per_day``). At ``min_audits``,
    or after ``max_hours``, the live student is asked what they were asked, and the gate's tests, at the margin that
    so many audits resolve, keep it or roll it back. It is rolled back at once where its server fails repeatedly or
    its own audits prove parity broken. ``share: 0`` is none: what passed the gate is live at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(0.1, ge=0, le=0.5)
    audit_rate: float = Field(0.2, ge=0, le=1)
    min_audits: int = Field(100, gt=0)
    max_hours: float = Field(24.0, gt=0)


class Distil(BaseModel):
    """When and how the unattended cycle makes a better student.

    A round starts once ``min_new_records`` trainable records are there that no bundle was trained on.
    ``usd_per_hour`` is what an hour of the training machine costs; it counts against the saving.
    ``method``: how the student learns from the teacher, with that method's own settings. ``soup``: how often it is
    trained, each time in another order; it gets the mean of the weights. ``patience``: a training ends after so many
    dev losses that were no better than the best one, whose weights are kept; 0: never early.
    Where a round costs something, ``watch`` starts none that is not expected to pay itself back by what it saves
    within ``payback_days``. ``canary``: how a new student is tried on live traffic before it takes the place of a
    live bundle; null: not at all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_new_records: int = Field(500, gt=0)
    epochs: float = Field(3.0, gt=0)
    soup: int = Field(1, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    batch_size: int = Field(32, gt=0)
    max_tokens: int = Field(1024, gt=0)
    patience: int = Field(0, ge=0)
    tuning: Literal["full", "lora"] = "full"
    method: MethodSettings = HardLabelSettings()
    replay: float = Field(0.1, ge=0, le=1)
    usd_per_hour: Decimal = Field(Decimal(0), ge=0)
    payback_days: float = Field(90.0, gt=0)
    synthetic: Synthetic = Synthetic()
    gate: Gate = Gate()
    canary: Canary | None = Canary()

    @property
    def trial(self) -> Canary | None:
        """The canary's settings; None where there is none."""
        return self.canary if self.canary is not None and self.canary.share else None
