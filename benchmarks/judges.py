"""Which judge can be trusted with worked answers: each against whether both models were right, as recorded.

    python benchmarks/judges.py --data DIR --out FILE.json

Reads ``gsm8k.jsonl.gz`` in DIR: answers of Mixtral-8x7B (the student) and GPT-4 (the teacher) to one grade-school
problem each, and whether each is right. The student's counts as acceptable where it is right or the teacher's is
wrong. Semantic judges need the encoder, which is distilled into the cache once.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

from harness import Row, conditions, read_jsonl, write_result
from rich.console import Console
from rich.table import Table

from router.judges.base import Means
from router.judges.judge import Judges
from router.judges.measure import JudgeAgreement
from router.judges.pair import Pair
from router.policy.judges import AnyJudge, Exact, Normalised, Numeric, Semantic
from router.scoring.text.encoder import load_encoder
from router.settings import Settings

JUDGES: dict[str, AnyJudge] = {
    "locum": Numeric(),  # what docs/judges.md says to choose here
    "exact": Exact(),
    "normalised": Normalised(),
    "semantic 0.90": Semantic(at_least=0.90),
    "semantic 0.95": Semantic(at_least=0.95),
    "semantic 0.97": Semantic(at_least=0.97),
}


async def measured(name: str, judge: AnyJudge, rows: Sequence[Row], cache: Path) -> Row:
    judges = Judges(judge, Means(encoder=lambda: load_encoder(cache)))
    found = []
    for row in rows:
        said = await judges.verdict(Pair({"content": row["student_text"]}, {"content": row["teacher_text"]}))
        found.append((bool(row["student_correct"] or not row["teacher_correct"]), said.acceptable))
    return {"name": name, "judge": judge.label, **figures(JudgeAgreement.of(found))}


def figures(m: JudgeAgreement) -> Row:
    """Rates with their two-sided 95% bounds."""
    rates = {"agreement": m.agreement, "precision": m.precision, "recall": m.recall, "passed_bad": m.false_acceptance}
    shown = {
        name: None if r.value is None else [round(x, 4) for x in (r.value, r.low, r.high)] for name, r in rates.items()
    }
    return {"pairs": m.n, "kappa": None if m.kappa is None else round(m.kappa, 4) + 0.0, **shown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with gsm8k.jsonl.gz")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows, cache = read_jsonl(args.data / "gsm8k.jsonl.gz"), Settings.from_env().cache
    found = [asyncio.run(measured(name, judge, rows, cache)) for name, judge in JUDGES.items()]
    found.append({"name": "always acceptable", **figures(always(rows))})
    write_result(args.out, "judges", conditions(set="gsm8k", pairs=len(rows)), found)
    table = Table("judge", "agreement", "kappa", "precision", "recall", "passed of the bad", box=None)
    for row in found:
        rates = (row[n] and f"{row[n][0]:.1%}" for n in ("agreement", "precision", "recall", "passed_bad"))
        agreement, *others = (r or "" for r in rates)
        table.add_row(row["name"], agreement, "" if row["kappa"] is None else f"{row['kappa']:.3f}", *others)
    Console().print(table)


def always(rows: Sequence[Row]) -> JudgeAgreement:
    return JudgeAgreement.of((bool(row["student_correct"] or not row["teacher_correct"]), True) for row in rows)


if __name__ == "__main__":
    main()
