"""How much the student's own answer tells: the score alone, and the second look at whole answers and beginnings.

Reads the records that a run of `benchmarks/loop.py --home HOME` left: every answer of a truly distilled
student to a Banking77 request, judged by the recorded label. For each student version that answered enough,
the scorer is fitted on its newest answers, and the second look on the scorer's held-out scores; every
figure is of predictions for examples that neither had seen (5 folds). No model is asked.

    python benchmarks/second_look.py --home HOME --data ../shared/data --out benchmarks/results/second_look.json
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from harness import Row, conditions, last_user_text, read_jsonl, write_result
from rich.console import Console
from rich.table import Table

from distiller.evaluation.calibration import auroc, calibration_error
from router.contracts.decision import Tier
from router.contracts.records import Signals
from router.scoring import answer_head
from router.scoring.linear import Bools, Floats, sigmoid
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.signals import read_words
from router.scoring.text.encoder import load_encoder
from router.scoring.text.features import extract
from router.settings import Settings
from router.store.access import open_readonly

FOLDS = 5
Ints = npt.NDArray[np.int64]
Look = Callable[[Ints, Ints], Sequence[float]]
"""From the examples to fit on and those to predict to the probabilities of the latter."""


def answers(home: Path, data: Path) -> dict[str, list[Example]]:
    """By student version, oldest first, what it answered to requests of which the label is known."""
    gold = {row["text"]: row["gold"] for row in read_jsonl(data / "banking77.jsonl.gz") if row["gold"]}
    found: dict[str, list[Example]] = defaultdict(list)
    with closing(open_readonly(Settings(home=home))) as log:
        for _, record in log.records("intents"):
            answer = record.answer_of(Tier.STUDENT)
            text = last_user_text(record.request) if record.request else ""
            if answer is None or not answer.finish_reason or not answer.signals or not answer.message:
                continue
            if text not in gold or record.request is None:
                continue
            said = answer.message["content"] or ""
            read_words(said, answer.signals)  # records of older versions have no words
            example = Example(extract(record.request), answer.signals, said.strip() == gold[text])
            found[answer.student_version or "base"].append(example)
    return found


def held_out(look: Look, labels: Bools, seed: int) -> Floats:
    """Each example's probability by what had not seen its fold: (n,)."""
    rng, folds, found = np.random.default_rng(seed), np.zeros(len(labels), np.int64), np.zeros(len(labels))
    for value in (False, True):
        members = rng.permutation(np.flatnonzero(labels == value))
        folds[members] = np.arange(len(members)) % FOLDS
    for fold in range(FOLDS):
        found[folds == fold] = look(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold))
    return found


def second_look(scores: Floats, signals: Sequence[Signals], labels: Bools) -> Look:
    def look(fit: Ints, predict: Ints) -> list[float]:
        known = [signals[i] for i in fit]
        found = answer_head.fit(scores[fit].tolist(), known, labels[fit], np.ones(len(fit)), 0)
        assert found is not None
        return [found[0](scores[i], signals[i]) for i in predict]

    return look


def one_number(values: Floats, labels: Bools) -> Look:
    """A calibrated logistic regression on one number."""
    from sklearn.linear_model import LogisticRegression

    def look(fit: Ints, predict: Ints) -> list[float]:
        model = LogisticRegression(C=100.0).fit(values[fit, None], labels[fit])
        return [sigmoid(z) for z in model.decision_function(values[predict, None]).tolist()]

    return look


def measured(name: str, p: Floats, labels: Bools, **more: object) -> Row:
    """AUROC, log loss, calibration error over ten bins of equal size, and the share of requests that could be
    served at parity 0.95 with the best threshold in hindsight."""
    from sklearn.metrics import log_loss

    order = np.argsort(-p, kind="stable")
    within = np.flatnonzero(np.cumsum(~labels[order]) <= 0.05 * len(p))
    varies = len(set(p.tolist())) > 1
    return {
        "name": name,
        "auroc": round(auroc(p, labels), 4) if varies else None,
        "log_loss": round(float(log_loss(labels, np.clip(p, 1e-4, 1 - 1e-4))), 4),
        "ece": round(calibration_error(p, labels), 4),
        "share_at_parity_95": round(float((within[-1] + 1) / len(p)) if len(within) else 0.0, 4),
        **more,
    }


def microseconds(scores: Floats, signals: Sequence[Signals], labels: Bools) -> float:
    """CPU time of one second look."""
    found = answer_head.fit(scores.tolist(), signals, labels, np.ones(len(labels)), 0)
    assert found is not None
    pairs = list(zip(scores.tolist(), signals, strict=True))
    took = []
    for _ in range(5):
        began = time.process_time()
        for score, seen in pairs:
            found[0](score, seen)
        took.append((time.process_time() - began) / len(pairs))
    return round(min(took) * 1e6, 2)


def rows_of(version: str, examples: list[Example], seed: int, settings: Settings) -> list[Row]:
    labels = np.array([e.acceptable for e in examples], np.bool_)
    signals = [e.signals for e in examples if e.signals is not None]
    scores = np.asarray(Scorer.fit(examples, load_encoder(settings.cache), seed).held_out_)
    about = {"student": version, "answers": len(labels), "acceptable": round(float(labels.mean()), 4)}
    wordless = [replace(s, answer=None) for s in signals]
    mean, total = (np.array([getattr(s, name) for s in signals]) for name in ("mean_logprob", "sum_logprob"))
    found = [
        ("random", np.full(len(labels), labels.mean())),
        ("score alone", scores),
        ("mean log-probability alone", held_out(one_number(mean, labels), labels, seed)),
        ("sequence log-probability alone", held_out(one_number(total, labels), labels, seed)),
        ("locum without the answers' records", held_out(second_look(scores, wordless, labels), labels, seed)),
        ("locum", held_out(second_look(scores, signals, labels), labels, seed)),
    ]
    rows = [measured(name, p, labels, **about) for name, p in found]
    rows[-1]["us_per_answer"] = microseconds(scores, signals, labels)
    oracle = min(1.0, float(labels.mean()) + 0.05)
    return [*rows, {"name": "oracle", "share_at_parity_95": round(oracle, 4), **about}]


def show(rows: Sequence[Row], console: Console) -> None:
    view = Table(title="The second look", header_style="bold")
    for column in ("student", "name", "auroc", "log_loss", "ece", "share_at_parity_95"):
        view.add_column(column)
    for row in rows:
        view.add_row(*(str(row.get(c, "")) for c in ("student", "name", "auroc", "log_loss", "ece")),
                     str(row["share_at_parity_95"]))  # fmt: skip
    console.print(view)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="the home of a run of benchmarks/loop.py")
    parser.add_argument("--data", type=Path, required=True, help="folder with banking77.jsonl.gz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--least", type=int, default=1000, help="answers below which a version is left out")
    parser.add_argument("--newest", type=int, default=3000, help="of each version, at most")
    parser.add_argument("--seed", type=int, default=0)
    args, console = parser.parse_args(), Console()
    settings = Settings.from_env()
    known = {v: e[-args.newest :] for v, e in answers(args.home, args.data).items() if len(e) >= args.least}
    rows = [row for v, found in sorted(known.items()) for row in rows_of(v, found, args.seed, settings)]
    show(rows, console)
    where = conditions(
        student="SmolLM2-135M-Instruct, distilled by the loop; every version is a later round's",
        stream="Banking77; all that the student was asked, judged by the recorded label",
        folds=FOLDS,
        seed=args.seed,
        note="a record is how often the same short answer was right before",
    )
    write_result(args.out, "second_look", where, rows)


if __name__ == "__main__":
    main()
