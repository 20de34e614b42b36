"""What of a record a policy lets a disk have: its text redacted, or none of it; as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from decimal import Decimal
from typing import Any

import orjson

from router.contracts.logprobs import packed_as_told
from router.contracts.records import Answer, Audit, Record
from router.policy import LogPart
from router.store.redact import redact_json

_RECORD, _ANSWER, _AUDIT = (tuple(f.name for f in fields(kind)) for kind in (Record, Answer, Audit))


def kept_record(record: Record, rules: LogPart | None, unspelled: Callable[[], None] = lambda: None) -> str:
    """The record's JSON, fit to be kept: fields that are None are left out. Without rules (a policy not known
    here) no text is. ``unspelled`` is told of each answer that loses its tokens' probabilities, since they spell
    what was redacted.

    Raises:
        orjson.JSONEncodeError: no JSON can hold it.
    """
    kept = _plain(record, _RECORD)
    kept["request"] = _text(record.request, rules)
    kept["answers"] = [_answer(answer, rules, unspelled) for answer in record.answers]
    if record.audit is not None:
        kept["audit"] = _audit(record.audit, rules)
    return orjson.dumps(kept, default=_decimal).decode()


def kept_audit(audit: Audit, rules: LogPart | None) -> str:
    """The same for an audit that comes after its record."""
    return orjson.dumps(_audit(audit, rules), default=_decimal).decode()


def _audit(audit: Audit, rules: LogPart | None) -> dict[str, Any]:
    kept = _plain(audit, _AUDIT)
    if audit.answer is not None:
        kept["answer"] = _answer(audit.answer, rules)
    return kept


def _answer(answer: Answer, rules: LogPart | None, unspelled: Callable[[], None] = lambda: None) -> dict[str, Any]:
    kept = _plain(answer, _ANSWER)
    kept["message"] = _text(answer.message, rules)
    told = kept.pop("top_logprobs", None)
    if told is not None and kept["message"] == answer.message:
        kept["top_logprobs"] = told if isinstance(told, str) else packed_as_told(told, _let_others_run)
    elif told is not None and kept["message"] is not None:
        unspelled()
    return kept


def _let_others_run() -> None:
    """Lets go of the interpreter's lock: an event loop next door may wait for it."""
    time.sleep(0)


def _plain(of: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(of, name)) is not None}


def _text(part: dict[str, Any] | None, rules: LogPart | None) -> dict[str, Any] | None:
    if part is None or rules is None or not rules.text:
        return None
    redacted: dict[str, Any] = redact_json(part, rules.redact)
    return redacted


def _decimal(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} is nothing that JSON holds")
