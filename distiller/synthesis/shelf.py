"""Where synthetic rows stand between rounds, and where it is written down what they cost."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from distiller.data.rights import ALLOWED, right_to
from distiller.data.rows import DatasetRow
from distiller.home import remember
from router.contracts.decision import Tier
from router.contracts.files import write_atomically
from router.contracts.records import Answer, AnswerKind, Rights
from router.contracts.rounds import SYNTHETIC, synthetic_spending
from router.policy.policy import Policy
from router.settings import Settings

ROWS = "synthetic.jsonl"


def kept(settings: Settings, policy: Policy) -> list[DatasetRow]:
    """The synthetic rows of a policy that it still lets be trained on, oldest first, for its datasets to take in."""
    rows = []
    for row in everything(settings, policy.name):
        recorded = Rights.ALLOWED if row.rights == ALLOWED else Rights.UNKNOWN
        answer = Answer(tier=Tier.TEACHER, kind=AnswerKind.TRAINED, model=row.teacher, training_rights=recorded)
        if (right := right_to(answer, policy)) is not None:
            rows.append(replace(row, rights=right))
    return rows


def keep(settings: Settings, policy: str, rows: Sequence[DatasetRow]) -> None:
    """Adds rows; one that is there already stays as it is."""
    known = everything(settings, policy)
    ids = {row.request_id for row in known}
    _write(settings, policy, [*known, *(row for row in rows if row.request_id not in ids)])


def drop(settings: Settings, policy: str, request_ids: Collection[str]) -> None:
    """Takes rows out."""
    known = everything(settings, policy)
    if any(row.request_id in request_ids for row in known):
        _write(settings, policy, [row for row in known if row.request_id not in request_ids])


def everything(settings: Settings, policy: str) -> list[DatasetRow]:
    """All synthetic rows of a policy, oldest first, whatever it lets be trained on."""
    path = settings.work(policy) / ROWS
    return [DatasetRow.from_json(line) for line in path.read_bytes().split(b"\n") if line] if path.is_file() else []


def _write(settings: Settings, policy: str, rows: Sequence[DatasetRow]) -> None:
    path = settings.work(policy) / ROWS
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, b"".join(row.to_json() + b"\n" for row in rows))


def booked(settings: Settings, policy: str, run: str) -> dict[str, Any] | None:
    """What was written down of a run; None where nothing was."""
    return next((s for s in synthetic_spending(settings.work(policy)) if s["run"] == run), None)


def book(settings: Settings, policy: str, run: str, usd: Decimal, report: dict[str, Any]) -> None:
    """Writes down, once, what a run cost: beside the rounds, so that the saving is told net of it."""
    if booked(settings, policy, run) is None:
        line = {"kind": SYNTHETIC, "at": time.time(), "run": run, "cost_usd": str(usd), **report}
        remember(settings.work(policy), json.loads(json.dumps(line)))
