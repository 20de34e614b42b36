"""What a backend said that no record could hold and be read back: made fit to be kept, or left out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from router.contracts.records import Answer, Audit, Record, ReductionReason

DEEPEST = 150
"""Levels that a message may nest: what reads a record back takes 199, and it nests the message deeper."""
CUT = "[nested too deeply]"


def mended(record: Record) -> Record:
    """The same record, with what no JSON can hold in its texts replaced."""
    return replace(
        record, request=_fit(record.request, DEEPEST), answers=[_mended(answer) for answer in record.answers]
    )


def mended_audit(audit: Audit) -> Audit:
    return replace(audit, answer=_mended(audit.answer)) if audit.answer else audit


def reduced(record: Record, why: ReductionReason) -> Record:
    """Money and decision alone: no text, nothing of tokens."""
    return replace(record, request=None, answers=[_reduced(answer) for answer in record.answers], reduced=why)


def reduced_audit(audit: Audit) -> Audit:
    return replace(audit, answer=_reduced(audit.answer)) if audit.answer else audit


def _mended(answer: Answer) -> Answer:
    return replace(answer, message=_fit(answer.message, DEEPEST), top_logprobs=None)


def _reduced(answer: Answer) -> Answer:
    model = answer.model if isinstance(answer.model, str) else ""
    finish_reason = answer.finish_reason if isinstance(answer.finish_reason, str) else None
    return replace(answer, model=model, message=None, finish_reason=finish_reason, top_logprobs=None, signals=None)


def _fit(value: Any, deepest: int) -> Any:
    """A copy that JSON can hold: half characters are replaced, numbers beyond 64 bits are floats or nothing, keys are
    strings, what nests deeper than ``deepest`` is cut off."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict | list | tuple) and not deepest:
        return CUT
    if isinstance(value, dict):
        return {_fit(str(key), 0): _fit(item, deepest - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_fit(item, deepest - 1) for item in value]
    if value is None or isinstance(value, bool) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    return _finite(value)


def _finite(value: object) -> float | None:
    try:
        found = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    return found if math.isfinite(found) else None
