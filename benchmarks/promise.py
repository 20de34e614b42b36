"""Does the quality floor hold as often as promised, and what share of the traffic does the student get?

Each set's rows are recorded requests with the recorded verdict: the student is no worse than the teacher on
this row. The product's own scorer is fitted on a random two fifths; the rest is split at random, over and
over, into a half that certifies a threshold and a half that tests it: the floor is broken where more than
1 - target of the test rows are served by the student unacceptably (what the teacher serves is parity).

"locum" is what the product does (router.scoring.statistics.thresholds.for_parity), with the test half as the horizon
from which on the floor is promised, however often somebody counts; here it is counted once. It is beside the bounds
on the long run alone (Clopper-Pearson; betting, by Waudby-Smith and Ramdas), conformal risk control, and the point
estimate. All of them serve what scores above a certain failure of the certifying half, counted from the best score:
they differ in which. So the chance to break the floor is known exactly ("chance"), and the rate over the splits
("broke") shows that it is so; "ever" is the chance that it breaks at this count or at any later one.

    python benchmarks/promise.py --data ../shared/data --out benchmarks/results/promise.json
    python benchmarks/promise.py --data ../shared/data --out benchmarks/results/promise_continuous.json --continuous

With --continuous it is counted at every audit of simulated streams, with the threshold following the audits and the
traffic changing in the middle: see continuous.py.

Banking77's student is TF-IDF and logistic regression, trained on 2,000 rows that are used for nothing else;
its teacher is the gold label. Fitted scores are kept in --cache under a hash of the scorer's source, so that
a second run, or one that was cut short, fits nothing twice.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from continuous import AFTER, BEFORE, CHANGES, OVER, RATE, WARY_RATE, Promise, measured
from continuous import show as show_continuous
from harness import Row, conditions, multiple_choice, read_jsonl, write_result
from rich.console import Console
from rich.table import Table

from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.statistics.risk import (
    betting_gains,
    break_probability,
    most_failures,
    running_break_probability,
)
from router.scoring.statistics.thresholds import for_parity
from router.scoring.text.encoder import load_encoder
from router.scoring.text.features import extract
from router.settings import Settings

TARGETS, CONFIDENCES = (0.90, 0.95, 0.98), (0.90, 0.95)
CONTINUOUS = 0.95
"""The confidence of what is counted at every audit."""
TRAIN = 0.4
STUDENT_ROWS = 2000
PRODUCT_CHECKED = 10
"""Splits of each scorer on which the product's function itself is asked, and must name the same threshold."""
CERTIFYING = ("router.scoring.statistics.risk", "router.scoring.statistics.thresholds")
"""What no fitted score depends on."""
LOCUM, RANDOM = "locum", "random order"


def by_betting(n: int, level: float, confidence: float) -> int:
    """How many of ``n`` may fail by the betting bound."""
    kept, lost = betting_gains(np.ones(n), level, confidence)
    wealth = kept.sum() + np.arange(n + 1) * (lost[0] - kept[0])  # logarithm, after 0, 1, ... failures
    return int((wealth >= -math.log(1 - confidence)).sum()) - 1


BASELINES: dict[str, Callable[[int, float, float], int]] = {
    "Clopper-Pearson": most_failures,
    "betting": by_betting,
    "conformal": lambda n, level, _: math.floor(level * (n + 1) + 1e-9) - 1,
    "point estimate": lambda n, level, _: math.floor(level * n + 1e-9),
}

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cell:
    target: float
    confidence: float

    @property
    def level(self) -> float:
        return 1 - self.target


CELLS = [Cell(target, confidence) for target in TARGETS for confidence in CONFIDENCES]


class Outcome(NamedTuple):
    """Which tier was right, and the set's subject of the prompt, which the client sends as its task tag."""

    student: bool
    teacher: bool
    subject: str = ""


def mmlu_pro(rows: Sequence[Row]) -> dict[str, Outcome]:
    """Llama-3.1-8B against Gemini-1.5-Pro."""
    found = {}
    for r in rows:
        student, teacher = (r["outputs"][name]["correct"] for name in ("llama-3.1-8b", "gemini-1.5-pro"))
        found[multiple_choice(r)] = Outcome(bool(student), bool(teacher), r["category"])
    return found


def recorded(rows: Sequence[Row]) -> dict[str, Outcome]:
    """Mixtral-8x7B against GPT-4-1106."""
    return {
        r["prompt"]: Outcome(bool(r["student_correct"]), bool(r["teacher_correct"]), r.get("domain", "")) for r in rows
    }


def banking77(rows: Sequence[Row]) -> dict[str, Outcome]:
    """A small classifier against the gold label, on the rows that it was not trained on."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    gold = {r["text"]: str(r["gold"]) for r in rows}
    texts = [list(gold)[i] for i in np.random.default_rng(0).permutation(len(gold))]
    known, rest = texts[:STUDENT_ROWS], texts[STUDENT_ROWS:]
    student = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=20))
    student.fit(known, [gold[t] for t in known])
    return {
        t: Outcome(bool(said == gold[t]), teacher=True) for t, said in zip(rest, student.predict(rest), strict=True)
    }


SETS: dict[str, Callable[[Sequence[Row]], dict[str, Outcome]]] = {
    "mmlu": recorded,
    "gsm8k": recorded,
    "mmlu_pro": mmlu_pro,
    "banking77": banking77,
}


def example(prompt: str, o: Outcome) -> Example:
    body = {"messages": [{"role": "user", "content": prompt}], "metadata": {"task": o.subject}}
    return Example(extract(body), None, o.student or not o.teacher, student=o.student, teacher=o.teacher)


class Fits:
    """The product's scorer, fitted on random parts of a set: scores of the rest, and what is acceptable of it."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self._data, self._folder, self._console = args.data, args.cache, console
        self._encoder = load_encoder(Settings.from_env().cache)
        read = [m for name, m in sys.modules.items() if name.startswith("router.scoring.") and name not in CERTIFYING]
        sources = sorted(str(m.__file__) for m in read)
        self._version = hashlib.sha256(b"".join(Path(p).read_bytes() for p in sources)).hexdigest()[:12]

    def scored(self, name: str, scorers: int) -> list[tuple[Floats, Bools]]:
        """(scores, acceptable) for each scorer, best score first, (n,) each."""
        files = [self._folder / f"{name}-{self._version}-{seed}.npz" for seed in range(scorers)]
        if not all(f.exists() for f in files):
            self._folder.mkdir(parents=True, exist_ok=True)
            rows = SETS[name](read_jsonl(self._data / f"{name}.jsonl.gz"))
            examples = [example(prompt, outcome) for prompt, outcome in rows.items()]
            for seed, file in enumerate(files):
                if not file.exists():
                    self._fit(examples, seed, file)
                    self._console.print(f"{name}: scorer {seed + 1} of {scorers} fitted")
        found = [np.load(f) for f in files]
        return [(f["scores"], f["acceptable"]) for f in found]

    def _fit(self, examples: Sequence[Example], seed: int, file: Path) -> None:
        order = np.random.default_rng(seed).permutation(len(examples))
        cut = round(TRAIN * len(order))
        scorer = Scorer.fit([examples[i] for i in order[:cut]], self._encoder, seed)
        rest = [examples[i] for i in order[cut:]]
        scores = np.array([scorer.score(e.features) for e in rest])
        best = np.argsort(-scores, kind="stable")
        good = np.array([e.acceptable for e in rest])
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, scores=scores[best], acceptable=good[best])
        partial.replace(file)


def measure(
    scores: Floats, good: Bools, most: Ints, splits: int, rng: np.random.Generator
) -> tuple[list[Bools], Ints, Floats]:
    """What certifies in the first splits, (n,), and by rule, (splits, rules), test rows lost and the share served.

    ``scores`` and ``good``: (n,), best score first. Rule r serves what scores above the certifying failure
    before which ``most[r]`` others come; nothing, where that is no certifying row or ``most[r]`` is negative.
    """
    n, wrong = len(scores), np.flatnonzero(~good)
    first = np.append(np.searchsorted(-scores, -scores), n)  # of those with an equal score
    halves, lost, share = [], np.zeros((splits, len(most)), np.int64), np.zeros((splits, len(most)))
    for split in range(splits):
        certifying = np.zeros(n, np.bool_)
        certifying[rng.permutation(n)[: n // 2]] = True
        failures = np.append(wrong[certifying[wrong]], np.full(max(0, most.max()) + 1, n))
        end = np.where(most < 0, 0, first[failures[most]])
        certified = np.append(0, np.cumsum(certifying))[end]
        end = np.where(certified > 0, end, 0)
        halves += [certifying] if split < PRODUCT_CHECKED else []
        lost[split] = np.append(0, np.cumsum(~certifying & ~good))[end]
        share[split] = (end - certified * (end > 0)) / (n - n // 2)
    return halves, lost, share


def check_product(scores: Floats, good: Bools, halves: Sequence[Bools], lost: Ints, share: Floats) -> None:
    """Asks the product itself for its thresholds, the first rules' in the order of ``CELLS``.

    Raises RuntimeError where one is not what was measured.
    """
    for split, half in enumerate(halves):
        test = int((~half).sum())
        for column, cell in enumerate(CELLS):
            found = for_parity(scores[half], None, good[half], cell.target, cell.confidence, over=test)
            served = ~half & (scores >= found.route)
            if (served & ~good).sum() != lost[split, column] or round(test * share[split, column]) != served.sum():
                raise RuntimeError(f"the product's threshold {found} is not the rule that was measured")


def set_rows(name: str, parts: Sequence[tuple[Floats, Bools]], splits: int) -> list[Row]:
    """All methods on one set, over ``splits`` splits of what each scorer was not fitted on."""
    n = len(parts[0][0])
    half, test = n // 2, n - n // 2
    rules = [(LOCUM, cell, most_failures(half, cell.level, cell.confidence, test)) for cell in CELLS]
    blind = [(RANDOM, cell, failures) for _, cell, failures in rules]
    rules += [(b, cell, rule(half, cell.level, cell.confidence)) for b, rule in BASELINES.items() for cell in CELLS]
    most, blind_most = (np.array([failures for *_, failures in given]) for given in (rules, blind))
    seen, unseen = [], []
    for seed, (scores, good) in enumerate(parts):
        rng = np.random.default_rng(seed)
        halves, lost, share = measure(scores, good, most, splits, rng)
        check_product(scores, good, halves, lost, share)
        seen.append((lost, share))
        unseen.append(measure(np.arange(n, 0, -1.0), rng.permutation(good), blind_most, splits // 10, rng)[1:])
    about = {"set": name, "certified_on": half, "tested_on": test}
    acceptable = float(np.mean([good.mean() for _, good in parts]))
    rows = []
    for given, found in ((rules, seen), (blind, unseen)):
        lost, share = (np.concatenate(values) for values in zip(*found, strict=True))
        rows += [_row(about, rule, lost[:, i], share[:, i]) for i, rule in enumerate(given)]
    rows += [row for cell in CELLS for row in _fixed(about, cell, acceptable)]
    return [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def _fixed(about: Row, cell: Cell, acceptable: float) -> list[Row]:
    """What needs no certifying; the oracle knows all outcomes, and spends the whole floor."""
    said = {**about, "target": cell.target, "confidence": cell.confidence, "promised": 1 - cell.confidence}
    oracle = min(1.0, acceptable + cell.level)
    return [
        {"name": "always teacher", **said, "broke": 0.0, "share": 0.0, "parity": 1.0},
        {
            "name": "always student",
            **said,
            "broke": float(acceptable < cell.target),
            "share": 1.0,
            "parity": acceptable,
        },
        {"name": "oracle", **said, "broke": 0.0, "share": oracle, "parity": 1 - max(0.0, oracle - acceptable)},
    ]


def _row(about: Row, rule: tuple[str, Cell, int], lost: Ints, share: Floats) -> Row:
    name, cell, failures = rule
    half, test = about["certified_on"], about["tested_on"]
    broke = float((lost > cell.level * test + 1e-9).mean())
    return {
        "name": name,
        **about,
        "target": cell.target,
        "confidence": cell.confidence,
        "promised": 1 - cell.confidence,
        "broke": broke,
        "chance": break_probability(failures, half, cell.level, test) if failures >= 0 else 0.0,
        "ever": running_break_probability(failures, half, cell.level, test) if failures >= 0 else 0.0,
        "share": float(share.mean()),
        "share_sd": float(share.std()),
        "parity": 1 - float(lost.mean()) / test,
        "failures_let_in": failures,
        "splits": len(lost),
    }


def show(rows: Sequence[Row], console: Console) -> None:
    names = [LOCUM, *BASELINES, RANDOM, "oracle"]
    view = Table(title="how often the floor broke | student share", header_style="bold")
    for column in ("set", "target", "promised", *names):
        view.add_column(column, justify="right")
    cells = dict.fromkeys((r["set"], r["target"], r["promised"]) for r in rows)
    kept = best = 0
    for cell in cells:
        found = {r["name"]: r for r in rows if (r["set"], r["target"], r["promised"]) == cell}
        said = [f"{found[n]['broke']:.3f} | {found[n]['share']:.3f}" for n in names]
        view.add_row(cell[0], f"{cell[1]:.2f}", f"{cell[2]:.2f}", *said)
        valid = [found[n]["share"] for n in BASELINES if found[n]["ever"] <= cell[2]]
        kept += found[LOCUM]["ever"] <= cell[2]
        best += found[LOCUM]["share"] >= max(valid, default=0.0)
    console.print(view)
    console.print(f"{LOCUM}: the promise holds, however often it is counted, in {kept} of {len(cells)} cells, with the")
    console.print(f"largest share of the methods of which that is so in {best}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the recorded sets")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the rows")
    parser.add_argument("--set", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--scorers", type=int, default=10, help="scorers a set, each fitted on its own random part")
    parser.add_argument("--splits", type=int, default=20_000, help="splits of the rest for each scorer")
    parser.add_argument("--continuous", action="store_true", help="count at every audit of streams that change")
    parser.add_argument("--streams", type=int, default=40, help="of each set, promise and change, with --continuous")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "locum-promise")
    return parser.parse_args()


def main() -> None:
    args, console = arguments(), Console()
    about = {
        "scorers": args.scorers,
        "trained_on_share": TRAIN,
        "mmlu, gsm8k": "Mixtral-8x7B against GPT-4-1106",
        "mmlu_pro": "Llama-3.1-8B against Gemini-1.5-Pro",
        "banking77": f"TF-IDF and logistic regression on {STUDENT_ROWS} rows against the gold label",
    }
    fits = Fits(args, console)
    (continuously if args.continuous else once)(args, fits, about, console)


def once(args: argparse.Namespace, fits: Fits, about: Row, console: Console) -> None:
    rows = []
    for name in args.set:
        parts = fits.scored(name, args.scorers)
        rows += set_rows(name, parts, args.splits)
        console.print(f"{name}: {args.scorers * args.splits} splits of {len(parts[0][0])} rows measured")
    show(rows, console)
    about |= {
        "splits_per_scorer": args.splits,
        "broke": "share of the splits in which more than 1 - target of the test half was lost",
        "chance": "of that, exact: by the hypergeometric distribution, whatever the traffic",
        "ever": "bounds the chance that the floor is found broken by whoever counts on after the test half",
    }
    write_result(args.out, "promise", conditions(**about), rows)


def continuously(args: argparse.Namespace, fits: Fits, about: Row, console: Console) -> None:
    parts = {name: fits.scored(name, args.scorers) for name in args.set}
    promises = [Promise(target, CONTINUOUS) for target in TARGETS]
    rows = measured(parts, promises, args.streams, console)
    show_continuous(rows, console)
    about |= {
        "simulated": "requests are drawn with replacement from recorded rows; verdicts come at once",
        "streams": args.streams,
        "requests": f"{BEFORE} before the change and {AFTER} after it; changes: {', '.join(CHANGES)}",
        "audits": f"{RATE} of the requests, {WARY_RATE} where a rule asks for more",
        "broke": f"share of the streams in which more than 1 - target was lost at any audit from request {OVER} on",
    }
    write_result(args.out, "promise_continuous", conditions(**about), rows)


if __name__ == "__main__":
    main()
