"""Label heads instead of a language model: fitted in seconds on the dataset's training rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distiller.data.dataset import Dataset, read
from distiller.data.rows import DatasetRow
from router.errors import TrainingError
from router.heads.files import save
from router.heads.fit import fit_heads
from router.scoring.text.encoder import Encoder


def heads_of(
    dataset: Dataset, out: Path, encoder: Encoder | None, on_step: Callable[[int, int], None]
) -> dict[str, Any]:
    """Writes the heads into the folder ``out``. Returns what is told of the training, as plain values.

    Raises:
        TrainingError: no kind of requests has a closed set of answers; the message says why of the largest.
    """
    began = time.monotonic()
    rows = sorted(read(dataset.train), key=lambda row: (row.created_at, row.request_id))
    heads, kinds = fit_heads([_asked(row) for row in rows], [_said(row) for row in rows], encoder, on_step)
    if not heads.heads:
        told = "; ".join(f"{kind.name}: {kind.why} ({kind.requests} requests)" for kind in kinds[:3])
        raise TrainingError(f"no kind of requests is one for a label head: {told or 'there are none'}")
    save(heads, out)
    return {
        "rows": len(rows),
        "heads": len(heads.heads),
        "encoder": encoder.name if encoder else None,
        "seconds": time.monotonic() - began,
        "left_out": {},
        "kinds": [asdict(kind) for kind in kinds],
    }


def _asked(row: DatasetRow) -> dict[str, Any]:
    return {**row.options, "messages": row.messages, "metadata": {"task": row.task or ""}}


def _said(row: DatasetRow) -> dict[str, Any]:
    return {"role": "assistant", "content": row.answer}
