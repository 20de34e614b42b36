"""What a million tokens cost at one backend, in US dollars."""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel, ConfigDict


class Price(BaseModel):
    """USD per million tokens."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    input: Decimal
    """Tokens that are read."""
    output: Decimal
    """Tokens that are written."""
    cached_input: Decimal | None = None
    """Tokens that a prompt cache had; null: as ``input``."""
