"""An evaluation in a terminal: the report's main figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Column, Table

from distiller.evaluation.charts import percent
from distiller.evaluation.page import LOOKS, SIGNALS


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
