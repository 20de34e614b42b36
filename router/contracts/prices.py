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
    cache_write: Decimal | None = None
    """Tokens that a prompt cache took up; null: 1.25 times ``input``, as Claude's."""
    cache_write_1h: Decimal | None = None
    """Tokens that it took up to be kept for an hour; null: twice ``input``."""

    @property
    def writes(self) -> tuple[Decimal, Decimal]:
        """What a token that a prompt cache took up costs, for as long as is usual and for an hour."""
        usual = Decimal("1.25") * self.input if self.cache_write is None else self.cache_write
        return usual, 2 * self.input if self.cache_write_1h is None else self.cache_write_1h
