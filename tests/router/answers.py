"""Answers as acceptance sees them, and what was asked for."""

from __future__ import annotations

from typing import Any

from router.judges.soundness import AnswerSoFar, AskedForm

FREE = AskedForm()
TEAM = {
    "type": "object",
    "properties": {"team": {"type": "string", "enum": ["billing", "cards"]}},
    "required": ["team"],
    "additionalProperties": False,
}
JSON_TEAM = AskedForm(json=True, schema=TEAM)


def seen(text: str | None, finish: str | None = "stop", **fields: Any) -> AnswerSoFar:
    return AnswerSoFar(
        {"role": "assistant", "content": text, **fields}, finish_reason=finish, complete=finish is not None
    )
