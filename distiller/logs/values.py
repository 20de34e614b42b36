"""Reading what somebody else wrote: a value where it is of the kind that is looked for, else None."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from router.contracts.records import Usage
from router.wire.usage import MOST_USD, read_usage

OLDEST, NEWEST = 946_684_800.0, 4_102_444_800.0
"""Unix time of the years 2000 and 2100: what lies beyond is no time of a call."""
_UNITS = (1.0, 1e3, 1e6, 1e9)


def mapping(value: Any) -> dict[str, Any]:
    """An object, also one that was written into a text; empty for all else."""
    found = parsed(value)
    return found if isinstance(found, dict) else {}


def parsed(value: Any) -> Any:
    """What JSON in a text says; all else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def first(of: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The first of these fields that says anything; None where none does."""
    for name in names:
        value = of.get(name)
        if value is not None and value not in ("", {}, []):
            return value
    return None


def text(value: Any) -> str | None:
    """A name, a text or a number as text; None for anything else, and for nothing."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value).strip() or None


def moment(value: Any) -> float | None:
    """Unix time from a number (seconds, milli-, micro- or nanoseconds) or from ISO 8601; None where it is no time.

    A time without a zone is UTC's."""
    if isinstance(value, str):
        said = value.strip()
        try:
            value = float(said)
        except ValueError:
            return _iso(said)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return next((number / unit for unit in _UNITS if OLDEST <= number / unit < NEWEST), None)


def _iso(said: str) -> float | None:
    try:
        found = datetime.fromisoformat(said.removesuffix(" UTC"))
        unix = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return unix if OLDEST <= unix < NEWEST else None


def dollars(value: Any) -> Decimal | None:
    """An amount that a call can have cost, in US dollars."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or not str(value).strip():
        return None
    try:
        usd = Decimal(str(value))
    except InvalidOperation:
        return None
    return usd if usd.is_finite() and 0 <= usd <= MOST_USD else None


def usage_of(*told: Any) -> Usage | None:
    """The first of these that counts the tokens on both sides."""
    for one in told:
        found = read_usage(mapping(one)) if mapping(one) else None
        if found is not None and found.whole:
            return found.usage
    return None


def seconds_between(start: float | None, end: float | None) -> float:
    """How long a call took; 0 where that is not told."""
    if start is None or end is None or not math.isfinite(end - start):
        return 0.0
    return max(0.0, end - start)
