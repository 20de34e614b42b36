"""The history of distillation rounds, as a file: what learning did and what it cost, promoted or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from router.contracts.bundles import MANIFEST, Manifest

HISTORY = "rounds.jsonl"
SYNTHETIC = "synthetic"
"""The kind of a line in the history that is no round: what was paid for synthetic data, by hand or in a round. A round
that ended names its run (``synthetic_run``), and its own cost holds that."""
CANARY = "canary"
"""The kind of one that tells how a canary ended."""


def history(folder: Path) -> list[dict[str, Any]]:
    """The finished rounds of one policy, by its work folder, oldest first."""
    return [line for line in _lines(folder) if line.get("kind") not in (SYNTHETIC, CANARY)]


def canaries(folder: Path) -> list[dict[str, Any]]:
    """How canaries ended, oldest first: ``kept`` or not, the ``reasons``, by how many ``audits``, at what cost."""
    return [line for line in _lines(folder) if line.get("kind") == CANARY]


def synthetic_spending(folder: Path) -> list[dict[str, Any]]:
    """What was paid for synthetic data, run by run, oldest first: ``run`` names it, ``cost_usd`` is what it cost."""
    return [line for line in _lines(folder) if line.get("kind") == SYNTHETIC]


def _lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / HISTORY
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def training_costs(bundles: Path, work: Path) -> Iterator[tuple[float, Decimal]]:
    """(unix time, USD) of every round of one policy: those of the history, rejected ones too, with what was paid for
    synthetic data that no round's cost holds, then bundles that it does not know. A damaged manifest counts nothing."""
    known, lines = set(), _lines(work)
    held = {done.get("synthetic_run") for done in lines}
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
