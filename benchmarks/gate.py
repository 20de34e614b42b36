"""Simulated: how often does the gate promote a candidate that is equal, better, worse, or broken in one place only?

Nothing here is measured on a model. Each trial draws a holdout: rows over eight tasks and three lengths, the
incumbent acceptable on 80% of them, the candidate as the scenario says. The two agree beyond chance, as students of
one base do: on four rows of five both have the same luck. Beside the gate stand two that compare point estimates: is
the candidate's rate higher overall, and is it also nowhere lower by more than the margin on any slice.

"no loss shown" is the part of the gate's word that is about harm alone; "promoted" asks for a gain too, for which each
student's expected share of the traffic is taken to be its acceptable rate. So an equal candidate is promoted half
as often as it passes.

    python benchmarks/gate.py --out benchmarks/results/gate.json
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from harness import Row, conditions, write_result
from rich.console import Console
from rich.progress import track
from rich.table import Table

from distiller.config import GateConfig
from distiller.evaluation.gate import GateResult, PairedOutcome, judge

TASKS = tuple(f"task={name}" for name in "abcdefgh")
LENGTHS = ("length=short", "length=medium", "length=long")
INCUMBENT, SAME_LUCK = 0.80, 0.80
QUANTISED = "int8"


@dataclass(frozen=True)
class Scenario:
    """``gain``: what the candidate's acceptable rate has over the incumbent's; ``broken``: its rate on some tasks
    instead. ``quantised``: the gain of its quantised form, None: there is none, and nothing but it serves."""

    name: str
    gain: float
    broken: Mapping[str, float] = field(default_factory=dict)
    quantised: float | None = None

    def rates(self, gain: float) -> dict[str, float]:
        return {task: self.broken.get(task, INCUMBENT + gain) for task in TASKS}


SCENARIOS = (
    Scenario("better by 5 points", 0.05),
    Scenario("better by 5 points, quantised by 4", 0.05, quantised=0.04),
    Scenario("better by 2 points", 0.02),
    Scenario("equal", 0.0),
    Scenario("worse by 2 points", -0.02),
    Scenario("worse by 5 points", -0.05),
    Scenario("worse by 10 points", -0.10),
    Scenario("broken on one task of 8: 0.80 -> 0.30, else better by 10", 0.10, {"task=a": 0.30}),
    Scenario("broken on one task of 8: 0.80 -> 0.05, else better by 12", 0.12, {"task=a": 0.05}),
    Scenario("broken on one task of 8: 0.80 -> 0.60, else better by 10", 0.10, {"task=a": 0.60}),
    Scenario("broken only when quantised: 5 points better, then 10 worse", 0.05, quantised=-0.10),
    Scenario("broken only when quantised: 5 points better, then 0.80 -> 0.05", 0.05, quantised=-0.75),
)


def holdout(scenario: Scenario, n: int, rng: np.random.Generator) -> list[PairedOutcome]:
    """``n`` rows, once in the candidate's own form, and once more where it has a quantised one."""
    tasks, lengths = rng.choice(TASKS, n), rng.choice(LENGTHS, n, p=(0.6, 0.3, 0.1))
    luck = rng.random(n)
    incumbent = luck < INCUMBENT
    own = np.where(rng.random(n) < SAME_LUCK, luck, rng.random(n))
    made = []
    forms = {"": scenario.gain} | ({} if scenario.quantised is None else {QUANTISED: scenario.quantised})
    for form, gain in forms.items():
        rates = scenario.rates(gain)
        right = own < np.array([rates[t] for t in tasks])
        rows = zip(right.tolist(), incumbent.tolist(), tasks.tolist(), lengths.tolist(), strict=True)
        made += [PairedOutcome(str(i), c, b, (task, length), form) for i, (c, b, task, length) in enumerate(rows)]
    return made


def by_point_estimate(verdict: GateResult, margin: float, *, slices: bool) -> bool:
    """Whether the first form's rate is higher, and with ``slices`` nothing lower than by the margin in any form."""
    first = verdict.slices[0]
    lower = [v for v in verdict.slices if v.candidate < v.incumbent - margin]
    return first.candidate > first.incumbent and not (slices and lower)


def trial(scenario: Scenario, n: int, rng: np.random.Generator, config: GateConfig) -> tuple[bool, bool, bool, bool]:
    """Promoted; no loss shown; promoted by a point estimate; by point estimates on every slice in every form."""
    rows = holdout(scenario, n, rng)
    first = [o for o in rows if not o.form]
    shares = sum(o.candidate for o in first) / n, sum(bool(o.incumbent) for o in first) / n
    verdict = judge(rows, *shares, config)
    harmless = all(v.passed for v in verdict.slices)
    points = (by_point_estimate(verdict, config.margin, slices=slices) for slices in (False, True))
    return verdict.promoted, harmless, *points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[250, 500, 1000, 2000, 4000])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    config, found = GateConfig(), []
    jobs = [(s, n) for s in SCENARIOS for n in args.sizes]
    for i, (scenario, n) in enumerate(track(jobs, "simulating")):
        rng = np.random.default_rng([0, i])
        told = np.array([trial(scenario, n, rng, config) for _ in range(args.trials)])
        promoted, harmless, point, by_slice = told.mean(axis=0).round(4).tolist()
        row = {
            "name": "locum",
            "scenario": scenario.name,
            "holdout": n,
            "promoted": promoted,
            "no_loss_shown": harmless,
        }
        found += [
            row,
            {"name": "point estimate", "scenario": scenario.name, "holdout": n, "promoted": point},
            {"name": "point estimate, every slice", "scenario": scenario.name, "holdout": n, "promoted": by_slice},
        ]
    show(found, args.sizes)
    if args.out:
        where = conditions(
            simulated=True, trials=args.trials, incumbent=INCUMBENT, same_luck=SAME_LUCK, margin=config.margin,
            confidence=config.confidence, min_slice=config.min_slice, power=config.power,
        )  # fmt: skip
        write_result(args.out, "gate", where, found)


def show(rows: list[Row], sizes: list[int]) -> None:
    console = Console()
    table = Table("scenario", "gate", *(f"{n:,} rows" for n in sizes), title="Promoted, % of simulated rounds")
    for scenario in SCENARIOS:
        for name in ("locum", "point estimate", "point estimate, every slice"):
            mine = [r for r in rows if r["scenario"] == scenario.name and r["name"] == name]
            table.add_row(scenario.name if name == "locum" else "", name, *(f"{100 * r['promoted']:.1f}" for r in mine))
        harmless = [r["no_loss_shown"] for r in rows if r["scenario"] == scenario.name and r["name"] == "locum"]
        table.add_row("", "locum: no loss shown", *(f"{100 * h:.1f}" for h in harmless), end_section=True)
    console.print(table)


if __name__ == "__main__":
    main()
