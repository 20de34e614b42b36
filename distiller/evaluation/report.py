"""An evaluation's two files: ``report.json`` for machines, ``report.html`` for people."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distiller.evaluation.page import page
from distiller.evaluation.study import Asked, Student, study
from router.contracts.files import write_atomically
from router.policy import Policy
from router.pricing import litellm_price

JSON, HTML = "report.json", "report.html"


def report(
    student: Student,
    asked: Asked,
    policy: Policy,
    *,
    source: str,
    in_flight: int,
    gate: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """All that is told of one evaluation. ``gate`` and ``training``: what a bundle's manifest says of them."""
    price = policy.teacher.usd_per_million or litellm_price(policy.teacher.model)
    found = study(
        student,
        asked,
        student_price=policy.student.usd_per_million,
        teacher_price=price,
        in_flight=in_flight,
        seed=seed,
    )
    more = {"policy": policy.name, "source": source, "at": time.time(), "seed": seed}
    return {**more, **found, "gate": gate or None, "training": training or None}


def write(values: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Writes both files, each whole or not at all; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / JSON, json.dumps(values, indent=1, allow_nan=False, default=str).encode())
    write_atomically(folder / HTML, page(values).encode())
    return folder / JSON, folder / HTML
