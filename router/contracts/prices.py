"""What a million tokens cost at one backend, in US dollars."""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel, ConfigDict


class Price(BaseModel):
    """USD per million tokens. ``cached_input`` is what a prompt-cache hit costs; None: as ``input``."""

    model_config = ConfigDict(frozen=True)

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
