"""What five rounds on changing traffic do to what a student knew: with replay, and without.

Banking77's intents come in five groups, one after the other. Each round trains SmolLM2-135M on, from the last
round's weights, on the newest group's messages; the dataset is built by the product's own code under a budget of
rows that the new ones fill, so that old rows get in by replay alone. After every round the student names the
intents of unseen messages of every group so far, in the engine that serves. Labels are the recorded gold ones:
this measures what is forgotten, not who taught it.

    python benchmarks/forgetting.py --data ../shared/data --out benchmarks/results/forgetting.json --home DIR

A run that was cut off goes on where it stopped if called again with the same --home. The baselines: no replay,
and everything seen so far each round (which costs that much more training).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness import Row, conditions, read_jsonl, write_result
from intents import STUDENT, answers, messages, policy, text_of
from rich.console import Console
from rich.table import Table

from distiller.bundles import StudentFiles
from distiller.config import DatasetConfig, TrainConfig
from distiller.data.dataset import build
from distiller.training.launch import train
from router.engine.weights import base_student
from router.settings import Settings

EVERYTHING = 1.0
"""A replay share that stands for: all rows seen so far, whatever the budget."""


def grouped(data: Path, groups: int, seed: int) -> list[list[Row]]:
    """The intents dealt into so many groups, each with its messages in a shuffled order."""
    rows = read_jsonl(data / "banking77.jsonl.gz")
    draw = random.Random(seed)
    intents = sorted({r["gold"] for r in rows})
    draw.shuffle(intents)
    draw.shuffle(rows)
    return [[r for r in rows if r["gold"] in intents[g::groups]] for g in range(groups)]


def accuracies(student: Path, tests: Sequence[Sequence[Row]], folder: Path) -> list[float]:
    """For each group of messages, the share whose intent the student names, in the engine that serves it."""
    asked = messages([r for group in tests for r in group], "gold", audited=True)
    said = iter(answers(StudentFiles(student), asked, folder))
    return [sum(text_of(next(said)) == r["gold"] for r in group) / len(group) for group in tests]


def variant(args: argparse.Namespace, share: float, home: Path, console: Console) -> list[Row]:
    """Five rounds with this much replay; each round's accuracy by group so far."""
    groups = grouped(args.data, args.groups, args.seed)
    tests = [g[: args.test] for g in groups]
    news = [g[args.test : args.test + args.rows] for g in groups]
    student: Path = base_student(STUDENT, Settings.from_env().cache)
    parent: Path | None = None
    found = []
    for number in range(args.groups):
        folder = home / f"replay-{share}" / f"round-{number + 1}"
        result = folder / "result.json"
        dataset_folder, trained = folder / "dataset", folder / "student"
        if not result.exists():
            seen = [r for group in news[: number + 1] for r in group]
            budget = None if share == EVERYTHING else len(news[number])
            config = DatasetConfig(max_rows=budget, replay=share, dev_share=0.02)
            dataset = build(messages(seen, "gold"), policy(), dataset_folder, config, parent)
            report = train(replace(TrainConfig(epochs=args.epochs), seed=args.seed), student, dataset, trained)
            right = accuracies(trained, tests[: number + 1], folder)
            result.write_text(json.dumps({"right": right, "rows": report.rows, "seconds": report.seconds}))
        student, parent = trained, dataset_folder
        kept = json.loads(result.read_bytes())
        old = kept["right"][:-1]
        row = {
            "name": name_of(share),
            "round": number + 1,
            "trained_on": kept["rows"],
            "train_seconds": round(kept["seconds"], 1),
            "new_group": round(kept["right"][-1], 4),
            "old_groups": round(sum(old) / len(old), 4) if old else None,
            "first_group": round(kept["right"][0], 4),
        }
        console.print(row)
        found.append(row)
    return found


def name_of(share: float) -> str:
    if share == EVERYTHING:
        return "all rows every round"
    return "locum" if share == DatasetConfig().replay else f"replay {share:.0%}" if share else "no replay"


def show(rows: Sequence[Row], console: Console) -> None:
    view = Table(title="Accuracy on unseen messages after each round", header_style="bold")
    columns = ("name", "round", "trained_on", "new_group", "old_groups", "first_group", "train_seconds")
    for column in columns:
        view.add_column(column)
    for row in rows:
        view.add_row(*("–" if row[c] is None else str(row[c]) for c in columns))
    console.print(view)


def main(given: Sequence[str] | None = None) -> None:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--data", type=Path, required=True, help="folder with banking77.jsonl.gz")
    about.add_argument("--out", type=Path, required=True)
    about.add_argument("--home", type=Path, help="keep students and answers here, and go on from them")
    about.add_argument("--groups", type=int, default=5)
    about.add_argument("--rows", type=int, default=320, help="new messages a round")
    about.add_argument("--test", type=int, default=120, help="unseen messages a group")
    about.add_argument("--epochs", type=float, default=3.0)
    about.add_argument("--replay", type=float, action="append", help="shares to compare; 1 is all rows every round")
    about.add_argument("--seed", type=int, default=0)
    args, console = about.parse_args(given), Console()
    shares = args.replay or [0.0, DatasetConfig().replay, 0.3, EVERYTHING]
    with tempfile.TemporaryDirectory() as scratch:
        rows = [row for s in shares for row in variant(args, s, args.home or Path(scratch), console)]
    show(rows, console)
    how = {k: v for k, v in vars(args).items() if k not in ("data", "out", "home", "replay")}
    write_result(args.out, "forgetting", conditions(**how, student="SmolLM2-135M-Instruct", labels="gold"), rows)


if __name__ == "__main__":
    main()
