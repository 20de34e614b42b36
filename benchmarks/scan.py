"""The day-one report's predicted share of a head against what that very head then carries.

    python benchmarks/scan.py --data ../shared/data --out benchmarks/results/scan.json

For each recorded set, order and length the report (`locum scan`) is made of the log's first part, and its heads with
the thresholds that it certified are put to the 1,000 requests that came next, which they never saw. Told are the share
that was predicted with its limits, and the share and the parity that came true. Beside it stands the baseline: heads
with the loosest threshold whose point estimate holds the floor on the same rows, without a bound.

Simulated: which request came when is drawn, and a set's label (or, in "mixed", its recorded answer) plays the teacher:
Banking77's intents by people ("banking77") and by GPT-4 ("banking77-gpt4"), MMLU's subject of a question
("mmlu-subject"), MMLU-Pro's category ("mmlu_pro-category"), and in one log Banking77's intents, MMLU-Pro's letters and
GSM8K's worked answers ("mixed"), each behind a system prompt of its own.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from harness import Row, conditions, multiple_choice, read_jsonl, write_result
from rich.console import Console
from rich.table import Table

from distiller.logs.calls import LoggedCall, Source
from distiller.scan.kinds import kinds_of, parted
from distiller.scan.outlook import AHEAD, FLOORS, HeadOutlook, outlook_of
from distiller.scan.rows import ScanRow, row_of
from router.heads.kinds import RequestKinds
from router.scoring.text.encoder import Encoder, load_encoder
from router.settings import Settings

LENGTHS = (600, 1500, 3000)
SEEDS = (0, 1)
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Asked = tuple[str, str, str]
"""System prompt, message, answer."""


def banking(rows: Sequence[Row], field: str) -> Iterator[Asked]:
    yield from (("Name the intent of a bank's customer.", row["text"], row[field]) for row in rows if row[field])


def mixed(data: Path) -> Iterator[Asked]:
    yield from banking(read_jsonl(data / "banking77.jsonl.gz"), "gold")
    for row in read_jsonl(data / "mmlu_pro.jsonl.gz"):
        yield "Answer with the letter alone.", multiple_choice(row), row["answer"]
    for row in read_jsonl(data / "gsm8k.jsonl.gz"):
        yield "Solve the problem step by step.", row["prompt"], row["teacher_text"]


SETS: dict[str, Callable[[Path], Iterator[Asked]]] = {
    "banking77": lambda data: banking(read_jsonl(data / "banking77.jsonl.gz"), "gold"),
    "banking77-gpt4": lambda data: banking(read_jsonl(data / "banking77.jsonl.gz"), "gpt4"),
    "mmlu-subject": lambda data: (
        ("Name the subject.", row["prompt"], row["domain"]) for row in read_jsonl(data / "mmlu.jsonl.gz")
    ),
    "mmlu_pro-category": lambda data: (
        ("Name the category.", multiple_choice(row), row["category"]) for row in read_jsonl(data / "mmlu_pro.jsonl.gz")
    ),
    "mixed": mixed,
}


@dataclass(frozen=True, slots=True)
class Later:
    """What all heads together say of the requests that came after the log: scores (n,), -1 where there is no head."""

    scores: Floats
    right: Bools

    def carried(self, threshold: float | None) -> tuple[float, float]:
        """(share, parity of all requests)."""
        served = self.scores >= threshold if threshold is not None else np.zeros(len(self.scores), np.bool_)
        return float(served.mean()), 1 - float((served & ~self.right).mean())


def stream(asked: Sequence[Asked], seed: int, count: int) -> list[ScanRow]:
    drawn = random.Random(seed).sample(list(asked), count)
    rows = []
    for place, (system, message, answer) in enumerate(drawn):
        messages = [{"role": "system", "content": system}, {"role": "user", "content": message}]
        said = {"role": "assistant", "content": answer}
        call = LoggedCall(source=Source.OPENAI, request={"messages": messages}, message=said, at=float(place))
        rows.append(row_of(call, place, None))
    return rows


def later(outlook: HeadOutlook, kinds: RequestKinds, rows: Sequence[ScanRow], encoder: Encoder) -> Later:
    """Each request is for the head of its kind."""
    of = [kinds.of(row.features) for row in rows]
    scores, right = np.full(len(rows), -1.0), np.zeros(len(rows), np.bool_)
    for one in outlook.kinds:
        mine = [place for place, key in enumerate(of) if key == one.kind.key]
        if one.head is not None and mine:
            found = one.head.answers([rows[i].features for i in mine], one.head.inputs.reader(encoder))
            scores[mine] = [answer.score for answer in found]
            right[mine] = [answer.fields == rows[i].fields for answer, i in zip(found, mine, strict=True)]
    return Later(scores, right)


def by_point_estimate(outlook: HeadOutlook, floor: float) -> float | None:
    """The loosest threshold at which no more of the looked-at requests are wrong than the floor allows."""
    scores = np.concatenate([one.scores for one in outlook.kinds])
    right = np.concatenate([one.right for one in outlook.kinds])
    wrong = np.sort(scores[~right])[::-1]
    most = int((1 - floor) * outlook.looked_at)
    if not len(scores):
        return None
    return float(np.nextafter(wrong[most], np.inf)) if most < len(wrong) else 0.0


def cells(name: str, data: Path, encoder: Encoder) -> Iterator[Row]:
    asked = list(SETS[name](data))
    for seed in SEEDS:
        for length in LENGTHS:
            if length + AHEAD > len(asked):
                continue
            rows = stream(asked, seed, length + AHEAD)
            kinds = kinds_of(rows[:length])
            outlook = outlook_of(rows[:length], parted(kinds, rows[:length]), encoder)
            came = later(outlook, kinds, rows[length:], encoder)
            for carried in outlook.carried:
                share, parity = came.carried(carried.threshold)
                point_share, point_parity = came.carried(by_point_estimate(outlook, carried.floor))
                yield {
                    "name": f"{name} {length} #{seed}",
                    "floor": carried.floor,
                    "predicted": round(carried.share.estimate or 0.0, 4),
                    "low": round(carried.share.low, 4),
                    "high": round(carried.share.high, 4),
                    "share": round(share, 4),
                    "inside": bool(carried.share.holds(share)),
                    "parity": round(parity, 4),
                    "held": parity >= carried.floor - 1e-9,
                    "point_share": round(point_share, 4),
                    "point_parity": round(point_parity, 4),
                    "point_held": point_parity >= carried.floor - 1e-9,
                }


def summary(rows: Sequence[Row]) -> list[Row]:
    """By floor: how often the prediction was right and the floor held, ours and the baseline's."""
    found: list[Row] = []
    for floor in FLOORS:
        some = [row for row in rows if row["floor"] == floor]
        active = [row for row in some if row["predicted"] > 0]
        found.append(
            {
                "name": "locum",
                "floor": floor,
                "cells": len(some),
                "inside": sum(row["inside"] for row in some),
                "cells_that_carry": len(active),
                "inside_of_those": sum(row["inside"] for row in active),
                "floor_broken": sum(not row["held"] for row in some),
                "mean_share": round(float(np.mean([row["share"] for row in some])), 4),
            }
        )
        found.append(
            {
                "name": "point estimate",
                "floor": floor,
                "cells": len(some),
                "floor_broken": sum(not row["point_held"] for row in some),
                "mean_share": round(float(np.mean([row["point_share"] for row in some])), 4),
            }
        )
    return found


def show(rows: Sequence[Row], found: Sequence[Row]) -> None:
    table = Table("log", "floor", "predicted", "came true", "parity", "point estimate: share, parity", box=None)
    for row in rows:
        limits = f"{row['predicted']:.1%} ({row['low']:.1%} to {row['high']:.1%})"
        point = f"{row['point_share']:.1%}, {row['point_parity']:.3f}{'' if row['point_held'] else ' broken'}"
        came = f"{row['share']:.1%}{'' if row['inside'] else ' outside'}"
        parity = f"{row['parity']:.3f}{'' if row['held'] else ' broken'}"
        table.add_row(row["name"], f"{row['floor']:.2f}", limits, came, parity, point)
    console = Console()
    console.print(table)
    for row in found:
        console.print(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with recorded traffic")
    parser.add_argument("--out", type=Path, help="the result file; without it only the table is shown")
    parser.add_argument("--only", action="append", choices=SETS, help="only this set; repeat for several")
    args = parser.parse_args()
    encoder = load_encoder(Settings.from_env().cache)
    rows = [row for name in args.only or SETS for row in cells(name, args.data, encoder)]
    found = summary(rows)
    show(rows, found)
    if args.out:
        where = conditions(lengths=LENGTHS, orders=len(SEEDS), ahead=AHEAD, encoder=encoder.name)
        write_result(args.out, "scan", where, [*found, *rows])


if __name__ == "__main__":
    main()
