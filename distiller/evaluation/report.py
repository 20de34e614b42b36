"""An evaluation as two files, ``report.json`` for machines and ``report.html`` for people, and in a terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from distiller.evaluation.charts import percent
from distiller.evaluation.page import LOOKS, SIGNALS, page
from distiller.evaluation.study import EvaluatedStudent, Examination, study
from router.contracts.files import write_atomically
from router.policy.policy import Policy
from router.price_map import litellm_price

JSON, HTML = "report.json", "report.html"


def report(
    student: EvaluatedStudent,
    asked: Examination,
    policy: Policy,
    *,
    source: str,
    in_flight: int,
    gate: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    labels: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """All that is told of one evaluation. ``gate`` and ``training``: what a bundle's manifest says of them;
    ``labels``: what a label teacher had answered for it."""
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
    return {**more, **found, "gate": gate or None, "training": training or None, "labels": labels or None}


def write(values: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Writes both files, each whole or not at all; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / JSON, json.dumps(values, indent=1, allow_nan=False, default=str).encode())
    write_atomically(folder / HTML, page(values).encode())
    return folder / JSON, folder / HTML


def table(found: Mapping[str, Any]) -> Table:
    """Retention by slice beside what was forgotten there, then the rest, a line each."""
    student, rest = found["student"], []
    heads = ("n", "as good as the teacher", f"against {student['parent']}")
    shown = Table(
        "slice", *(Column(name, justify="right") for name in heads),
        title=f"{student['name']}, {student['form']} on {student['engine']}", title_justify="left",
        caption_justify="left",
    )  # fmt: skip
    changed = {r["name"]: r for r in (found["forgetting"] or {"slices": ()})["slices"]}
    for row in found["retention"]:
        beside = changed.get(row["name"])
        shown.add_row(row["name"], str(row["n"]), told(row["acceptable"]), told(beside["difference"]) if beside else "")
    for row in found["adversarial"]:
        shown.add_row(f"perturbed: {row['name']}", str(row["n"]), told(row["perturbed"]), "")
    rest += [
        f"calibration {LOOKS[c['name']].lower()}: ECE {c['ece']:.3f}, Brier {c['brier']:.3f}"
        for c in found["calibration"]
    ]
    if best := next(iter(found["deferral"]), None):
        rest.append(f"deferral AUROC {best['auroc'][0] or 0:.3f} by {SIGNALS.get(best['name'], best['name'])}")
    serving = found["serving"]
    rest.append(
        f"p50 {serving['seconds_p50']:.2f} s, p95 {serving['seconds_p95']:.2f} s with {serving['in_flight']} in flight"
    )
    if serving["usd_per_request"] is not None:
        rest.append(f"{1000 * serving['usd_per_request']:.4g} USD per 1,000 requests")
    shown.caption = "\n".join(rest)
    return shown


def told(limits: list[float | None]) -> str:
    return f"{percent(limits[0])} ({percent(limits[1])} – {percent(limits[2])})"
