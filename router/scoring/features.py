"""What a request looks like: its text in windows, and its structure as numbers.

``extract`` reads the parsed body of a chat-completions request once; it never raises for a malformed
message (that is the wire's business) but reads what it can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FEATURES_VERSION = "1"


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """One request, read. ``structure``: float32, (len(STRUCTURE),).

    ``context`` is all text before the last user turn: system messages, then earlier turns.
    ``user_window`` and ``context_window`` are what the scorer reads of ``last_user`` and ``context``.
    """

    system: str
    last_user: str
    context: str
    user_window: str
    context_window: str
    input_tokens: int
    turns: int
    has_images: bool
    has_audio: bool
    has_tools: bool
    wants_json: bool
    wants_schema: bool
    structure: npt.NDArray[np.float32]

    @property
    def text(self) -> str:
        """All text: system, earlier turns, last user turn."""
        return f"{self.context}\n{self.last_user}" if self.context else self.last_user

    @property
    def script(self) -> str:
        """The writing system of most of the last user turn, e.g. ``latin``, ``cyrillic``, ``cjk``."""
        raise NotImplementedError

    @property
    def language(self) -> str:
        """A guess at the last user turn's language, ISO 639-1; ``""`` where nothing tells."""
        raise NotImplementedError


def extract(body: Mapping[str, Any]) -> Features:
    """Reads a parsed chat-completions request."""
    raise NotImplementedError
