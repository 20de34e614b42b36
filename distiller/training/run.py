"""A training by any method, once or several times over, when the student gets the mean of what was learnt; or of label
heads.

Trainings that start from one student and see the rows in different orders end near each other, and the mean of their
weights does better than each, at what one costs to serve: a model soup (Wortsman et al. 2022, "Model soups: averaging
weights of multiple fine-tuned models improves accuracy without increasing inference time").
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from distiller.config import TrainConfig
from distiller.data.dataset import Dataset, read
from distiller.data.rows import DatasetRow
from distiller.training.chain import chained
from distiller.training.launch import train
from distiller.training.loop import TrainReport, fingerprint, read_report, together
from router.errors import TrainingError
from router.heads.files import save
from router.heads.fit import fit_heads
from router.policy.distillation import ProgressiveSettings
from router.scoring.text.encoder import Encoder


def trained(config: TrainConfig, student: Path, dataset: Dataset, out: Path) -> TrainReport:
    """Trains by any method, ``config.soup`` times; ``out`` has the student, or the mean of several.

    The report counts all trainings together; of a mean no dev loss is measured. What was cut off goes on where it was,
    if called again with the same arguments.

    Raises:
        TrainingError: as ``train`` and ``chained``.
    """
    once = chained if isinstance(config.method, ProgressiveSettings) else train
    if config.soup == 1:
        return once(config, student, dataset, out)
    place = out.with_name(f"{out.name}.soup-{fingerprint(config, student, dataset, config.processes)[:12]}")
    place.mkdir(parents=True, exist_ok=True)
    took = []
    for n in range(config.soup):
        one = place / f"{n + 1}-of-{config.soup}"
        alone = replace(config, soup=1, seed=config.seed + n)
        took.append(read_report(one) if one.exists() else once(alone, student, dataset, one))
    whole = place / out.name
    shutil.rmtree(whole, ignore_errors=True)
    mean([report.folder for report in took], whole)
    report = together(took, whole, dev_loss=None, best_step=None)
    shutil.rmtree(out, ignore_errors=True)
    whole.rename(out)
    shutil.rmtree(place)
    return replace(report, folder=out)


def mean(students: Sequence[Path], out: Path) -> None:
    """Writes the mean of the students' weights, computed in float32, as a folder that has all else of the last one.
    It is whole or not there."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    *others, last = students
    model: Any = AutoModelForCausalLM.from_pretrained(last, dtype=torch.float32)
    with torch.no_grad():
        for folder in others:
            other: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
            for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
                ours.add_(theirs)
        for weight in model.parameters():
            weight.div_(len(students))
    fresh = out.with_name(f"{out.name}.{os.getpid()}")
    shutil.copytree(last, fresh)
    model.to(torch.bfloat16).save_pretrained(fresh)
    fresh.rename(out)


def heads_of(
    dataset: Dataset, out: Path, encoder: Encoder | None, on_step: Callable[[int, int], None]
) -> dict[str, Any]:
    """Label heads instead of a language model, fitted in seconds: written into the folder ``out``. Returns what is told
    of the training, as plain values.

    Raises:
        TrainingError: no kind of requests has a closed set of answers; the message says why of the largest.
    """
    began = time.monotonic()
    rows = sorted(read(dataset.train), key=lambda row: (row.created_at, row.request_id))
    if not rows:
        raise TrainingError("there are no rows to learn from")
    heads, kinds = fit_heads([_asked(row) for row in rows], [row.said for row in rows], encoder, on_step)
    if not heads.heads:
        told = "; ".join(f"{kind.name}: {kind.why} ({kind.requests} requests)" for kind in kinds[:3])
        raise TrainingError(f"no kind of requests is one for a label head: {told}")
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
    """The request as its client sent it, as far as kinds are told apart by it."""
    return {**row.options, "messages": row.messages, "metadata": {"task": row.task or ""}}
