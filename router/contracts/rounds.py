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


def history(folder: Path) -> list[dict[str, Any]]:
    """The finished rounds of one policy, by its work folder, oldest first."""
    path = folder / HISTORY
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def training_costs(bundles: Path, work: Path) -> Iterator[tuple[float, Decimal]]:
    """(unix time, USD) of every round of one policy: those of the history, rejected ones too, then bundles that it
    does not know. A damaged manifest counts nothing."""
    known = set()
    for done in history(work):
        known.add(done.get("bundle"))
        yield float(done["at"]), Decimal(done["cost_usd"])
    for path in sorted(bundles.glob(f"*/{MANIFEST}")):
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
        if manifest.bundle_id not in known:
            yield manifest.created_at, Decimal(manifest.cost_usd)
