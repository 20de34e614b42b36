"""What of a record a policy lets a disk have: its text redacted, or none of it."""

from __future__ import annotations

from typing import Any

from router.contracts.records import Answer, Audit, Record
from router.policy import LogPart
from router.store.redact import redact_json


def kept_record(record: Record, rules: LogPart | None) -> Record:
    """A copy fit to be kept. Without rules (a policy not known here) no text is."""
    return record.model_copy(
        update={
            "request": _text(record.request, rules),
            "answers": [_answer(a, rules) for a in record.answers],
            "audit": kept_audit(record.audit, rules) if record.audit else None,
        }
    )


def kept_audit(audit: Audit, rules: LogPart | None) -> Audit:
    """The same for an audit that comes after its record."""
    return audit.model_copy(update={"answer": _answer(audit.answer, rules) if audit.answer else None})


def _answer(answer: Answer, rules: LogPart | None) -> Answer:
    return answer.model_copy(update={"message": _text(answer.message, rules)})


def _text(part: dict[str, Any] | None, rules: LogPart | None) -> dict[str, Any] | None:
    if part is None or rules is None or not rules.text:
        return None
    redacted: dict[str, Any] = redact_json(part, rules.redact)
    return redacted
