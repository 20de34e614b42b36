"""Rows of the log that cannot be read: they are passed over, counted and named, and hide nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

MOST = 10_000
NAMED = 3
WHAT_TO_DO = (
    "What a newer Locum wrote is read by that one; what is damaged goes with the policy's retention, or by deleting it"
)
_COSTS = re.compile(rb'"(?:cost_usd|judge_usd)"\s*:\s*"?([0-9.eE+-]{1,40})')


@dataclass(frozen=True, slots=True)
class UnreadRow:
    """One row. ``usd``: the money that stands in it nevertheless. ``seq`` is the row's in its ``table``."""

    table: str
    seq: int
    request_id: str
    why: str
    policy: str = ""
    created_at: float = 0.0
    usd: Decimal = Decimal(0)


class UnreadRows:
    """What a reader could not read so far, each row once, however often it is met. Any thread may add."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], UnreadRow] = {}

    def add(self, row: UnreadRow) -> None:
        key = row.table, row.seq
        known = self._found.get(key)
        if (known is None and len(self._found) < MOST) or (known is not None and known.usd < row.usd):
            self._found[key] = row

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[UnreadRow]:
        return iter(list(self._found.values()))

    def said(self) -> str | None:
        """For people: how many, which ones, and what to do; None where all could be read."""
        rows = list(self)
        if not rows:
            return None
        named = "; ".join(f"{r.table} {r.seq} (request {r.request_id}): {r.why}" for r in rows[:NAMED])
        more = f"; and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        count = (
            "1 row of the log cannot be read and is" if len(rows) == 1 else f"{len(rows)} rows cannot be read and are"
        )
        return f"{count} passed over: {named}{more}. {WHAT_TO_DO}"


def salvaged_usd(body: object) -> Decimal:
    """All money in what is left of a row's body: nobody can tell any more what it was spent on."""
    raw = body.encode(errors="replace") if isinstance(body, str) else body
    total = Decimal(0)
    for found in _COSTS.findall(raw) if isinstance(raw, bytes) else ():
        try:
            amount = Decimal(found.decode())
        except InvalidOperation:
            continue
        if amount.is_finite() and amount > 0:
            total += amount
    return total


def shown(value: Any) -> str:
    """A column's value as a name in a line of text."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return "".join(c if c.isprintable() else "?" for c in text[:64])


def reason(error: Exception) -> str:
    """Why, in a few words that hold nothing of what anybody wrote."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)[:120]
    first = errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}"[:120] if where else str(first["msg"])[:120]
