"""What a policy may say of how the scorer reads text."""

from __future__ import annotations

from typing import Literal

EncoderKind = Literal["static", "transformer"]
"""``static``: a table of token vectors, distilled from all-MiniLM-L6-v2; ``transformer``: that model itself."""
