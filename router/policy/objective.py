"""What a policy aims at."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Part(BaseModel):
    """A part of the policy file: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _base_url(url: str) -> str:
    """URLs are shown in logs and commands, and paths are added to them."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError(
            "a URL holds no user or password: put the key into an environment variable, and its name into 'api_key_env'"
        )
    if parts.query or parts.fragment:
        raise ValueError(
            "a base URL ends with its path, such as /v1, to which /chat/completions is added: leave out what follows "
            "'?' or '#'; a key belongs into an environment variable, its name into 'api_key_env'"
        )
    return url


BaseUrl = Annotated[str, AfterValidator(_base_url)]
"""Where a model server is."""


class Parity(Part):
    """Quality floor: parity of at least ``at_least``, shown at ``confidence`` by an exact test."""

    at_least: float = Field(0.95, gt=0, lt=1)
    """The floor: the share of requests that are answered as well as by the teacher."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of promises like this one, the share that hold when somebody counts."""
    over_requests: int | None = Field(1000, gt=0)
    """It is promised for the next so many requests together and for every longer count, whose own luck the test allows
    for: who counts them, however often, finds the floor broken no more often than promised. Null promises the long run
    alone."""


class Objective(Part):
    """What routing aims at: exactly one of the first four."""

    parity: Parity | None = None
    """A quality floor, shown by an exact test on audited traffic."""
    student_share: float | None = Field(None, ge=0, le=1)
    """The share of requests that go to the student: those that escalating would gain least on."""
    usd_per_day: Decimal | None = Field(None, ge=0)
    """What the teachers and the embeddings may cost for clients (audits have their own), spread over the day evenly. A
    cap as well: what an answer can cost at most is held before it is asked for, and the cap is passed by one answer at
    most."""
    threshold: float | None = Field(None, ge=0)
    """The score from which on the student serves; 0 to 1, and more is never."""
    when_spent: Literal["student", "refuse"] | None = None
    """What happens once ``usd_per_day`` is spent to what would go to the teacher, whatever sends it there: the
    ``student`` answers, as where nothing is said, and what it cannot do gets a 429 that tells when there is money
    again; or all of it does (``refuse``)."""

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        named = [n for n in ("parity", "student_share", "usd_per_day", "threshold") if getattr(self, n) is not None]
        if len(named) != 1:
            raise ValueError(
                f"objective: give exactly one of parity, student_share, usd_per_day, threshold, not {named}"
            )
        if self.when_spent is not None and self.usd_per_day is None:
            raise ValueError("objective: 'when_spent' belongs to 'usd_per_day'")
        return self

    # What each of them comes to: whoever acts on an objective asks these, so that a new one is told here alone.

    @property
    def kind(self) -> str:
        """The name of the one that is given."""
        return next(n for n in ("parity", "student_share", "usd_per_day", "threshold") if getattr(self, n) is not None)

    @property
    def target(self) -> float:
        """Its number: a parity, a share, US dollars a day, or a score."""
        return self.parity.at_least if self.parity else float(getattr(self, self.kind))

    @property
    def floor(self) -> Parity | None:
        """The quality that is promised: thresholds are certified for it."""
        return self.parity

    @property
    def share(self) -> float | None:
        """The share of the traffic that the student serves: the threshold is that quantile of what is compared."""
        return self.student_share

    @property
    def cap(self) -> Decimal | None:
        """US dollars a UTC day that the teachers may cost: the share follows what is left of it."""
        return self.usd_per_day

    @property
    def fixed(self) -> float | None:
        """The threshold itself, of scores and of answers."""
        return self.threshold

    @property
    def starts_from_prior(self) -> bool:
        """Whether the student serves before a scorer is fitted, by a declared prior: where no quality is promised, but
        a share or money. Requests are compared by what escalating them gains then, where that is known."""
        return self.student_share is not None or self.usd_per_day is not None

    @property
    def refuses(self) -> bool:
        """Whether what has no money left is refused; else the student answers what it can."""
        return self.when_spent == "refuse"
