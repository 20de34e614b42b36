"""The history of distillation rounds, as a file: what learning did and what it cost, promoted or not."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from router.contracts.bundles import MANIFEST, Manifest

HISTORY = "rounds.jsonl"
SYNTHETIC = "synthetic"
"""The kind of a line in the history that is no round: what was paid for synthetic data, by hand or in a round. A round
that ended names its run (``synthetic_run``), and its own cost holds that."""
LABELS = "labels"
"""The kind of one that tells what a label teacher was paid; a round names it as ``labels_run`` and holds its cost."""
CANARY = "canary"
"""The kind of one that tells how a canary ended."""
ABANDONED = "abandoned"
"""The kind of one that tells what a round cost that was interrupted, and never gone on with."""
CURRENT, CLOCK = "current", "clock.json"
"""The folder of the round under way, and its file that tells how long it has taken, in all processes together."""


def history(folder: Path) -> list[dict[str, Any]]:
    """The finished rounds of one policy, by its work folder, oldest first."""
    return [line for line in _lines(folder) if line.get("kind") not in (SYNTHETIC, LABELS, CANARY, ABANDONED)]


def canaries(folder: Path) -> list[dict[str, Any]]:
    """How canaries ended, oldest first: ``kept`` or not, the ``reasons``, by how many ``audits``, at what cost."""
    return [line for line in _lines(folder) if line.get("kind") == CANARY]


def synthetic_spending(folder: Path) -> list[dict[str, Any]]:
    """What was paid for synthetic data, run by run, oldest first: ``run`` names it, ``cost_usd`` is what it cost."""
    return [line for line in _lines(folder) if line.get("kind") == SYNTHETIC]


def label_spending(folder: Path) -> list[dict[str, Any]]:
    """What label teachers were paid, run by run, oldest first: ``run`` names it, ``cost_usd`` is what it cost."""
    return [line for line in _lines(folder) if line.get("kind") == LABELS]


def bought_runs(lines: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The runs of synthesis and of label teachers whose cost these rounds hold."""
    named = (line.get(name) for line in lines for name in ("synthetic_run", "labels_run"))
    return frozenset(run for run in named if run)


def _lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / HISTORY
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def training_costs(bundles: Path, work: Path) -> Iterator[tuple[float, Decimal]]:
    """(unix time, USD) of every round of one policy: those of the history, rejected and abandoned ones too, with what
    was paid for synthetic data and to label teachers that no round's cost holds, then bundles that it does not know,
    then the round that is under way or was interrupted. A damaged manifest counts nothing."""
    known, lines = set(), _lines(work)
    held = bought_runs(lines)
    for done in lines:
        known.add(done.get("bundle"))
        if done.get("run") is None or done["run"] not in held:
            yield float(done["at"]), Decimal(done["cost_usd"])
    for path in sorted(bundles.glob(f"*/{MANIFEST}")):
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
        if manifest.bundle_id not in known:
            yield manifest.created_at, Decimal(manifest.cost_usd)
    if (clock := read_clock(work / CURRENT)) is not None:
        yield clock.at, clock.usd


class RoundClock(BaseModel):
    """How long a round has taken until ``at`` (unix time), and what that costs in US dollars with what it paid to
    judges."""

    model_config = ConfigDict(frozen=True)

    at: float
    seconds: float
    usd: Decimal


def read_clock(folder: Path) -> RoundClock | None:
    """The round's in this folder; None where there is none."""
    try:
        return RoundClock.model_validate_json((folder / CLOCK).read_bytes())
    except (OSError, ValidationError):
        return None
