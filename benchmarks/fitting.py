"""What fitting the scorer takes: CPU seconds by part and peak memory, for more and more examples.

Prompts are written by a seeded generator (see decision.py), of 20 to 200 tokens, under one system prompt; whether
each tier was right follows a hidden rule on what a prompt asks for, with noise. "both" rows have labels of both
tiers, so two heads are fitted; "student" rows tell only what was acceptable. Each row is a process of its own, so
that its peak memory is its own. "refresh" is what 1,000 freshly judged requests cost without a refit.

    python benchmarks/fitting.py --out benchmarks/results/fitting.json
    python benchmarks/fitting.py --examples 1000 --threads 1 --out /tmp/fitting.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from decision import Writer
from harness import Row, conditions, write_result
from rich.console import Console
from rich.table import Table

from router.contracts.records import Signals
from router.scoring import fit
from router.scoring.model import Example
from router.scoring.neighbours import Neighbours
from router.scoring.scorer import Scorer
from router.scoring.signals import summarise
from router.scoring.text.encoder import load_encoder
from router.scoring.text.features import extract
from router.scoring.text.reader import Blocks, Reader
from router.scoring.text.templates import Templates
from router.settings import Settings

FRESH = 1000
TASKS = ("", "", "support", "billing", "search")
PARTS = {
    "reading": ((Templates, "fit"), (Reader, "__call__")),
    "rows": ((Blocks, "fit"), (Blocks, "familiarity"), (Blocks, "matrix")),
    "heads": ((fit.linear, "fit"),),
    "neighbours": ((Neighbours, "fit"),),
    "acceptance": ((fit, "_answer_head"),),
}
"""The functions that a part's time is spent in. The acceptance head is fitted by ``linear.fit`` too: its time there
is its own, not the heads'."""


def written(count: int, both: bool, seed: int) -> list[Example]:
    """Judged requests, every one with the student's signals."""
    writer, rng = Writer(seed), random.Random(seed)
    system, found = Writer(0).prompt(60), []
    for i in range(count):
        body = writer.body(rng.randrange(20, 200), system)
        body["metadata"] = {"task": rng.choice(TASKS)}
        hard = _hardness(body["messages"][1]["content"])
        student, teacher = rng.random() < 0.92 - 0.16 * hard, rng.random() < 0.95 - 0.04 * hard
        told = {"student": student, "teacher": teacher} if both else {}
        signals = _signals(rng, student)
        found.append(Example(extract(body), signals, student or not teacher, request_id=f"r{seed}-{i}", **told))
    return found


def _hardness(prompt: str) -> int:
    """The hidden rule: 0, easy, to 5."""
    words = ("explain", "refund", "because", "compare", "contract")
    return sum(word in prompt for word in words)


def _signals(rng: random.Random, right: bool) -> Signals:
    """A student hesitates more where it is wrong."""
    doubt = 6.0 if right else 2.0
    return summarise([-rng.expovariate(doubt) for _ in range(12)], complete=True)


class Clock:
    """CPU seconds of this process by part. What a part calls of another part counts as the outer one's."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._running = ""

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if self._running:
            yield
            return
        self._running, start = name, time.process_time()
        try:
            yield
        finally:
            self._running = ""
            self.seconds[name] += time.process_time() - start

    def watch(self) -> None:
        """From now on, in this process, the functions of ``PARTS`` tell this clock when they run."""
        for part, functions in PARTS.items():
            for owner, name in functions:
                self._wrap(part, owner, name)

    def _wrap(self, part: str, owner: Any, name: str) -> None:
        held = vars(owner)[name]
        plain = held.__func__ if isinstance(held, classmethod) else held

        @wraps(plain)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(part):
                return plain(*args, **kwargs)

        setattr(owner, name, classmethod(timed) if isinstance(held, classmethod) else timed)


def measure(count: int, both: bool, seed: int) -> Row:
    """One fit in this process."""
    encoder = load_encoder(Settings.from_env().cache)
    examples, fresh = written(count, both, seed), written(FRESH, both, seed + 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock = Clock()
    clock.watch()
    wall, cpu = time.monotonic(), time.process_time()
    scorer = Scorer.fit(examples, encoder, seed)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    scorer.refreshed(fresh)
    refresh = time.process_time() - start
    seconds = {**clock.seconds, "other": cpu - sum(clock.seconds.values()), "total": cpu, "wall": wall}
    return {
        **{f"{part}_seconds": round(s, 2) for part, s in seconds.items()},
        "refresh_seconds": round(refresh, 2),
        "examples_gb": round(before / 2**20, 2),
        "peak_gb": round(peak / 2**20, 2),
    }


def run(args: argparse.Namespace) -> Iterator[Row]:
    for count in args.examples:
        for both in (True, False):
            for threads in args.threads:
                env = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
                command = [sys.executable, __file__, "--one", str(count), "both" if both else "student"]
                done = subprocess.run(
                    [*command, "--seed", str(args.seed)], env=env, stdout=subprocess.PIPE, check=True, text=True
                )
                labels = "both tiers" if both else "student only"
                about = {"name": "locum", "examples": count, "labels": labels, "threads": threads}
                yield about | json.loads(done.stdout)


def show(rows: list[Row], console: Console) -> None:
    parts = [k.removesuffix("_seconds") for k in rows[0] if k.endswith("_seconds")]
    view = Table(title="Fitting: CPU seconds by part", header_style="bold")
    for column in ("examples", "labels", "threads", *parts, "peak GB"):
        view.add_column(column, justify="right")
    for row in rows:
        cells = (f"{row[f'{part}_seconds']:.1f}" for part in parts)
        view.add_row(f"{row['examples']:,}", row["labels"], str(row["threads"]), *cells, f"{row['peak_gb']:.1f}")
    console.print(view)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    parser.add_argument("--examples", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="threads of the linear algebra")
    parser.add_argument("--note", default="", help="what else the machine was doing, kept in the conditions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", nargs=2, metavar=("COUNT", "LABELS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.one and not args.out:
        parser.error("--out is needed")
    return args


def main() -> None:
    args = arguments()
    if args.one:
        print(json.dumps(measure(int(args.one[0]), args.one[1] == "both", args.seed)))
        return
    console, rows = Console(), []
    for row in run(args):
        rows.append(row)
        console.print(f"{row['examples']:,} examples, {row['labels']}: {row['total_seconds']} s of CPU")
        about = {"seed": args.seed, "fresh": FRESH, "unit": "CPU seconds", "note": args.note}
        write_result(args.out, "fitting", conditions(**about), rows)
    show(rows, console)


if __name__ == "__main__":
    main()
