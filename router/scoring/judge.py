"""Is the student's answer as good as the teacher's? The judges that need no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Message = Mapping[str, Any]
JUDGES: Mapping[str, Callable[[Message, Message], bool]] = {}


def acceptable(name: str, student: Message, teacher: Message) -> bool:
    """Whether judge ``name`` (exact, normalised, json, numeric) finds the student's message as good."""
    raise NotImplementedError
