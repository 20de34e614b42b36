"""What a teacher's dollar buys: requests escalated by score, by gain, and by gain for their expected cost.

The product's own scorer is fitted on one part of the recorded outcomes, with the lengths of the teacher's answers,
and ranks the rest. Counted is the gap in accuracy between the tiers that is recovered for a share of what sending
everything to the teacher would cost more (`usd_per_day` spends so), and what a share of the requests costs.

    python benchmarks/worth.py --data ../shared/data --out benchmarks/results/worth.json
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt
from harness import Row, conditions, count_tokens, multiple_choice, read_jsonl, write_result
from measures import Outcomes, recovered
from rich.console import Console
from rich.table import Table

from router.contracts.prices import Price
from router.pricing import Prices
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.encoder import Encoder, load_encoder
from router.scoring.text.features import extract
from router.scoring.worth import Extra, worth
from router.settings import Settings

Floats = npt.NDArray[np.float64]
PAIR = ("llama-3.1-8b", "gemini-1.5-pro")
SPENT, SHARES = (0.1, 0.2, 0.4), (0.2, 0.4)
CHEAP = Price(input=Decimal("0.1"), output=Decimal("0.1"))
DEAR = Price(input=Decimal("1.25"), output=Decimal(5))
EXTRA = Extra.of(Prices(CHEAP, {"teacher": DEAR}, "teacher"))


@dataclass(frozen=True)
class Item:
    """One recorded request, and how long the student's answer was."""

    example: Example
    student_tokens: int


def read_items(data: Path, name: str) -> list[Item]:
    items = []
    for row in read_jsonl(data / f"{name}.jsonl.gz"):
        if "outputs" in row:
            prompt, (one, other) = multiple_choice(row), (row["outputs"][model] for model in PAIR)
            right, wanted, said, told = one["correct"], other["correct"], one["text"], other["text"]
        else:
            prompt, right, wanted = row["prompt"], row["student_correct"], row["teacher_correct"]
            said, told = row["student_text"], row["teacher_text"]
        features = extract({"messages": [{"role": "user", "content": prompt}]})
        made = Example(
            features, None, right >= wanted, student=right, teacher=wanted, teacher_tokens=count_tokens(told)
        )
        items.append(Item(made, count_tokens(said)))
    return items


def outcomes(items: list[Item]) -> Outcomes:
    examples = [item.example for item in items]
    inputs = np.array([e.features.input_tokens for e in examples], float)
    student, teacher = (
        np.array(n, float) for n in ([i.student_tokens for i in items], [e.teacher_tokens for e in examples])
    )
    return Outcomes(
        np.array([e.student for e in examples], np.bool_),
        np.array([e.teacher for e in examples], np.bool_),
        (float(CHEAP.input) * inputs + float(CHEAP.output) * student) / 1e6,
        (float(DEAR.input) * inputs + float(DEAR.output) * teacher) / 1e6,
    )


def ranks(scorer: Scorer, items: list[Item], o: Outcomes, rng: np.random.Generator) -> dict[str, Floats]:
    """High goes to the teacher first, (n,) each."""
    features = [item.example.features for item in items]
    looks, lengths = [scorer.look(f) for f in features], scorer.learned.lengths
    assert lengths is not None
    gains = np.array([1 - look.score if look.gain is None else look.gain for look in looks])
    dear = [EXTRA.dearness(lengths.usual, f.input_tokens, k.tokens or 0) for f, k in zip(features, looks, strict=True)]
    true = o.teacher.astype(float) - o.student
    return {
        "locum": np.array([-worth(*pair) for pair in zip(gains.tolist(), dear, strict=True)]),
        "by gain": gains,
        "by score": np.array([-look.score for look in looks]),
        "random": rng.random(len(items)),
        "oracle": true / (o.teacher_usd - o.student_usd),
    }


def measured(rank: Floats, o: Outcomes) -> Row:
    order, n = np.argsort(-rank, kind="stable"), len(rank)
    pgr = recovered(rank, o)
    paid = np.append(0.0, np.cumsum((o.teacher_usd - o.student_usd)[order]))
    spent = paid / paid[-1]
    right = o.student.sum() + np.append(0.0, np.cumsum(o.teacher[order].astype(float) - o.student[order]))
    resolved = (o.student_usd.sum() + paid) / right
    found = {f"pgr_for_{share:.0%}_of_cost": float(np.interp(share, spent, pgr)) for share in SPENT}
    found |= {f"usd_per_1000_resolved_{s:.0%}": 1000 * float(np.interp(s, spent, resolved)) for s in SPENT}
    found |= {f"cost_for_pgr_{wanted:.0%}": float(spent[np.argmax(pgr >= wanted)]) for wanted in (0.5, 0.8)}
    shares = np.linspace(0, 1, n + 1)
    found |= {f"cost_of_{share:.0%}_escalated": float(np.interp(share, shares, spent)) for share in SHARES}
    found |= {f"pgr_of_{share:.0%}_escalated": float(np.interp(share, shares, pgr)) for share in SHARES}
    return found | {"apgr": float(np.trapezoid(pgr, shares)), "area": float(np.trapezoid(pgr, spent))}


def set_rows(name: str, items: list[Item], encoder: Encoder | None, splits: int, learn: int) -> list[Row]:
    """Means over random splits."""
    found: dict[str, list[Row]] = {}
    cut = min(learn, len(items) // 2)
    for seed in range(splits):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(items))
        fitting, test = [items[i].example for i in order[:cut]], [items[i] for i in order[cut:]]
        o = outcomes(test)
        for ranking, rank in ranks(Scorer.fit(fitting, encoder, seed), test, o, rng).items():
            found.setdefault(ranking, []).append(measured(rank, o))
    about = {"set": name, "splits": splits, "learn": cut, "test": len(items) - cut}
    return [
        {"name": ranking, **about, **{k: round(float(np.mean([r[k] for r in rows])), 4) for k in rows[0]}}
        for ranking, rows in found.items()
    ]


def show(rows: list[Row], console: Console) -> None:
    columns = [f"pgr_for_{share:.0%}_of_cost" for share in SPENT] + ["cost_for_pgr_50%", "pgr_of_20%_escalated", "apgr"]
    view = Table(title="What a teacher's dollar buys", header_style="bold")
    for column in ("set", "ranked", *columns):
        view.add_column(column.replace("_", " "), justify="left" if column in ("set", "ranked") else "right")
    for row in rows:
        view.add_row(row["set"], row["name"], *(f"{row[c]:.3f}" for c in columns))
    console.print(view)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the recorded sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--learn", type=int, default=3000, help="rows that the scorer is fitted on, at most")
    args, start = parser.parse_args(), time.monotonic()
    encoder, rows = load_encoder(Settings.from_env().cache), []
    for name in ("mmlu_pro", "gsm8k"):
        rows += set_rows(name, read_items(args.data, name), encoder, args.splits, args.learn)
    show(rows, Console())
    note = (
        "shares of cost: of what sending everything to the teacher costs more; prices of 0.1/0.1 and 1.25/5 USD per "
        "million tokens assumed; 'by gain' is what a student_share is decided by, 'locum' a usd_per_day; the recorded "
        "models date from 2023-24"
    )
    about = {"splits": args.splits, "learn": args.learn}
    write_result(args.out, "worth", conditions(**about, note=note, seconds=round(time.monotonic() - start)), rows)


if __name__ == "__main__":
    main()
