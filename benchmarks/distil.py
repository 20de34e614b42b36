"""Every method of distillation beside plain fine-tuning on gold labels and beside no training, on the same data.

Four parts, each with SmolLM2-135M-Instruct and the product's own code for dataset, training and serving:

- `intents`: Banking77. The teacher is GPT-4 by its recorded labels; the student learns from so many of them and
  names the intents of unseen messages. Accuracy is against the gold labels; `of_teacher` is beside the teacher's
  accuracy on the messages it labelled, `of_teacher_there` beside that with intents as often as among the unseen (the
  two are different splits of the set); `auroc` says how well the mean log-probability of the student's answer tells
  right from wrong (deferral). The hard-label student is asked in its quantised forms too.
- `whitebox`: SmolLM2-135M-Instruct is the teacher of a student cut from it, 12 of its 30 layers. Every method sees
  the same texts (GSM8K's questions with worked solutions) once; perplexity, the share of tokens at which student and
  teacher agree on the likeliest, and KL(teacher || student) are on unseen ones.
- `reasoning`: GSM8K. Without a rationale the student learns the final number, with one both; it is right where its
  last number is the gold one.
- `synthetic`: requests of weak kinds written by a simulated teacher; see `synthetic.py`.

    python benchmarks/distil.py --data ../shared/data --out benchmarks/results/distil.json --home DIR

Hours on a CPU. Each trained student and each of its answers is kept in --home: a run that was cut off, or one with
another --part or --only, goes on from there.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness import Row, conditions, read_jsonl, write_result
from intents import DATASET, STUDENT, answers, messages, policy, rightness, rows_of, text_of, worked
from rich.console import Console
from rich.table import Table
from synthetic import synthetic
from whitebox import likeliest, nearness

from distiller.bundles import StudentFiles
from distiller.config import TrainConfig
from distiller.data.dataset import Dataset, build, read
from distiller.data.dataset import load as load_dataset
from distiller.evaluation.answers import StudentAnswer
from distiller.evaluation.calibration import auroc
from distiller.forms.export import export
from distiller.training.batches import encode
from distiller.training.chain import even, shrink
from distiller.training.methods.reasoning import marked
from distiller.training.run import mean, trained
from router.contracts.records import Record
from router.engine.template import PromptTemplate
from router.engine.weights import base_student
from router.errors import DatasetError
from router.policy.distillation import (
    ConfidenceSettings,
    FeatureSettings,
    HardLabelSettings,
    MethodSettings,
    OnPolicySettings,
    ProgressiveSettings,
    ReasoningSettings,
    SoftLabelSettings,
)
from router.policy.engines import ENGINES
from router.settings import Settings

SOUP = 3
"""Students of other seeds whose weights' mean is one more."""
CUT = 12
"""Layers of the white-box student."""
TOLD = 5
"""Likeliest tokens that a recorded white-box teacher tells of."""
QUANTISED = [(engine, form) for engine, known in ENGINES.items() if engine for form in known.forms if form != "bf16"]
"""Engines, and the forms they read."""
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Bench:
    """What every part works with."""

    args: argparse.Namespace
    console: Console
    base: Path

    def wanted(self, name: str) -> bool:
        return not self.args.only or any(name.startswith(o) for o in self.args.only)

    def dataset(self, folder: Path, records: Sequence[Record]) -> Dataset:
        """These records as the product makes a dataset of them, kept where it is there already."""
        try:
            return load_dataset(folder)
        except DatasetError:
            return build(records, policy(), folder, DATASET)

    def train(self, folder: Path, method: MethodSettings, data: Dataset, start: Path, **changes: Any) -> Row:
        """The trained student in ``folder/student``, and what training it took."""

        def learn() -> Row:
            self.console.print(f"[bold]{folder.name}[/]: training", highlight=False)
            config = replace(TrainConfig(method=method, epochs=self.args.epochs, seed=self.args.seed), **changes)
            report = trained(config, start, data, folder / "student")
            return {"train_rows": report.rows, "train_tokens": report.tokens, "train_seconds": round(report.seconds)}

        return kept(folder / "trained.json", learn)


def kept(path: Path, make: Callable[[], Row]) -> Row:
    """What ``make`` returns, kept in the file ``path`` and read from there the next time."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(make()))
    found: Row = json.loads(path.read_bytes())
    return found


def intents(bench: Bench) -> Iterator[Row]:
    """Banking77 by GPT-4's labels."""
    args, home = bench.args, bench.args.home / "intents"
    rows = read_jsonl(args.data / "banking77.jsonl.gz")
    random.Random(args.seed).shuffle(rows)
    taught = [r for r in rows if r["gpt4"]][: args.labels]
    unseen = [r for r in rows if not r["gpt4"]][: args.test]
    teacher, there = right_of_teacher(taught, unseen)
    about = {"part": "intents"}

    def told(accuracy: float) -> Row:
        shares = {"accuracy": 1, "of_teacher": teacher, "of_teacher_there": there}
        return {name: round(accuracy / whole, 4) for name, whole in shares.items()}

    without = {"always-teacher (GPT-4, recorded)": teacher, "always-teacher, intents as often as unseen": there}
    without |= by_no_student(taught, unseen, rows)
    yield from ({"name": name, **about, **told(accuracy)} for name, accuracy in without.items())
    first, *others = range(args.seed, args.seed + SOUP)
    hard = {"locum hard-label": first, **{f"locum hard-label, seed {seed}": seed for seed in others}}
    plans: list[tuple[str, str, MethodSettings | None, int]] = [
        ("no training", "gpt4", None, first),
        ("plain fine-tuning on gold", "gold", HardLabelSettings(), first),
        *((name, "gpt4", HardLabelSettings(), seed) for name, seed in hard.items()),
        ("locum confidence, doubt 0.1", "gpt4", ConfidenceSettings(doubt=0.1), first),
    ]

    def place(name: str) -> Path:
        return Path(home / name.replace(" ", "-"))

    def row(name: str, student: StudentFiles, folder: Path, engine: str = "embedded", **took: Any) -> Row:
        said = answers(student, messages(unseen, "gold", len(rows), audited=True), folder, engine)
        right = rightness(said, unseen)
        tells = {**deferral(said, right), **told(float(right.mean())), "tested": len(unseen)}
        return {"name": name, **about, **took, **tells}

    for name, label, method, seed in plans:
        if not bench.wanted(name):
            continue
        folder, took = place(name), {}
        if method is not None:
            data = bench.dataset(home / f"dataset-{label}", messages(taught, label))
            took = bench.train(folder, method, data, bench.base, seed=seed)
        yield row(name, StudentFiles(folder / "student" if method else bench.base), folder, **took)
    if bench.wanted(name := f"locum hard-label, soup of {SOUP}"):
        folder = place(name)
        if not (folder / "student").exists():
            mean([place(one) / "student" for one in hard], folder / "student")
        yield row(name, StudentFiles(folder / "student"), folder)
    student = home / "locum-hard-label" / "student"
    for engine, form in QUANTISED:
        name = f"locum hard-label, served as {form}"
        if bench.wanted(name):
            folder = home / f"hard-label-{form}"
            folder.mkdir(parents=True, exist_ok=True)
            weights = folder / "weights"
            if not weights.exists():
                export(student, form, weights, STUDENT)
            files = StudentFiles(student, weights) if engine == "llama-server" else StudentFiles(weights)
            yield row(name, files, folder, engine)


def by_no_student(taught: Sequence[Row], unseen: Sequence[Row], rows: Sequence[Row]) -> dict[str, float]:
    """What is reached without a language model, or any model."""
    words = {f"TF-IDF and logistic regression on {name}": of_words(taught, name, unseen) for name in ("gold", "gpt4")}
    return {"random": 1 / len({r["gold"] for r in rows}), **words}


def of_words(taught: Sequence[Row], label: str, unseen: Sequence[Row]) -> float:
    """The accuracy of a classifier that is no language model."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    model = make_pipeline(make_union(words, letters), LogisticRegression(C=30, max_iter=300, tol=1e-3))
    model.fit([r["text"] for r in taught], [r[label] for r in taught])
    return float(model.score([r["text"] for r in unseen], [r["gold"] for r in unseen]))


def right_of_teacher(taught: Sequence[Row], unseen: Sequence[Row]) -> tuple[float, float]:
    """The teacher's accuracy on what it labelled, and what that is if intents come as often as in ``unseen``."""
    right = defaultdict(list)
    for r in taught:
        right[r["gold"]].append(r["gpt4"] == r["gold"])
    means = {intent: sum(found) / len(found) for intent, found in right.items()}
    overall = sum(r["gpt4"] == r["gold"] for r in taught) / len(taught)
    return overall, sum(means[r["gold"]] for r in unseen) / len(unseen)


def deferral(said: Sequence[StudentAnswer], right: np.ndarray) -> Row:
    """How well the answers' mean log-probability tells the right ones: AUROC, None where all are alike."""
    means = np.array([a.signals.mean_logprob if a.signals else -99.0 for a in said])
    found = auroc(means, right)
    return {"auroc": None if found is None else round(found, 4)}


def whitebox_plans(teacher: Path, cut: Path, warm: Path) -> list[tuple[str, Path, MethodSettings | None]]:
    """Name, the student to begin with, and how it learns. ``warm`` has had half of the training by plain fine-tuning:
    where student and teacher have nothing in common some divergences have next to no slope."""

    def soft(**more: Any) -> SoftLabelSettings:
        return SoftLabelSettings(teacher=str(teacher), **more)

    def recorded(**more: Any) -> SoftLabelSettings:
        return SoftLabelSettings(teacher="recorded", mix=1.0, **more)

    flat = {
        "soft-label, reverse KL": soft(mix=1.0, divergence="reverse"),
        "soft-label, JSD": soft(mix=1.0, divergence="jsd"),
        "soft-label, skewed KL": soft(mix=1.0, divergence="skewed", mixed=0.1),
        "on-policy": OnPolicySettings(teacher=str(teacher), share=0.5, max_new_tokens=64),
    }
    return [
        ("no training", cut, None),
        ("plain fine-tuning on the texts", cut, HardLabelSettings()),
        ("locum soft-label, forward KL", cut, soft(mix=1.0)),
        ("locum soft-label, forward KL with half cross-entropy", cut, soft(mix=0.5)),
        (f"locum soft-label, forward KL, top {TOLD} recorded", cut, recorded()),
        (f"locum soft-label, forward KL, top {TOLD} recorded, truncated", cut, recorded(rest="truncated")),
        ("locum feature", cut, FeatureSettings(teacher=str(teacher), mix=1.0)),
        *((f"locum {name}", cut, method) for name, method in flat.items()),
        *((f"half plain fine-tuning, half locum {name}", warm, method) for name, method in flat.items()),
        ("locum progressive, 20 then 12 layers", teacher, ProgressiveSettings(layers=(20, CUT), mix=1.0)),
    ]


def whitebox(bench: Bench) -> Iterator[Row]:
    """A cut student and the whole one as its teacher."""
    from transformers import AutoTokenizer

    args, home = bench.args, bench.args.home / "whitebox"
    rows = read_jsonl(args.data / "gsm8k_gold_train.jsonl.gz")
    random.Random(args.seed).shuffle(rows)
    learnt, unseen = rows[: args.texts], rows[args.texts : args.texts + args.unseen_texts]
    records = worked(learnt)
    told = kept(home / "told.json", lambda: {"packed": likeliest(bench.base, rows_of(records), TOLD)})["packed"]
    records = [replace(r, answers=[replace(r.answers[0], top_logprobs=t)]) for r, t in zip(records, told, strict=True)]
    data = bench.dataset(home / "dataset-told", records)
    held = bench.dataset(home / "unseen", worked(unseen, audited=True))
    tests, _ = encode(read(held.holdout), PromptTemplate(AutoTokenizer.from_pretrained(bench.base)), 1024)
    cut = home / "cut"
    if not cut.exists():
        shrink(bench.base, cut, even(CUT, 30))
    warm = home / "warm" / "student"
    how = {"epochs": 1.0, "batch_size": 8, "learning_rate": args.whitebox_rate, "freeze_embeddings": True}
    bench.train(warm.parent, HardLabelSettings(), data, cut, **how | {"epochs": 0.5})
    about = {"part": "whitebox", "tested": len(tests)}
    yield {"name": "always-teacher", **about, **nearness(bench.base, bench.base, tests)}
    for name, start, method in whitebox_plans(bench.base, cut, warm):
        if not bench.wanted(name):
            continue
        folder, took = home / re.sub(r"[^a-z0-9]+", "-", name.lower()), {}
        if method is not None:  # two trainings of half the tokens each are the same budget
            half = {} if start == cut else {"epochs": 0.5, "seed": args.seed + 1}
            took = bench.train(folder, method, data, start, **how | half)
        near = kept(folder / "near.json", partial(nearness, folder / "student" if method else cut, bench.base, tests))
        yield {"name": name, **about, **took, **near}


def reasoning(bench: Bench) -> Iterator[Row]:
    """GSM8K with the worked solution, and with the final number alone."""
    args, home = bench.args, bench.args.home / "reasoning"
    rows = read_jsonl(args.data / "gsm8k_gold_train.jsonl.gz")
    random.Random(args.seed + 1).shuffle(rows)
    learnt, unseen = rows[: args.problems], rows[args.problems : args.problems + args.unseen_problems]
    data = bench.dataset(home / "dataset", worked(learnt))
    finals = bench.dataset(home / "finals", worked([{**r, "answer": final(r["answer"])} for r in learnt]))
    marker = ReasoningSettings().marker
    thinking = [{**r, "question": marked([{"content": r["question"]}], marker)[-1]["content"]} for r in unseen]
    asked: list[tuple[str, Sequence[Row], Dataset, MethodSettings | None]] = [
        ("no training", unseen, data, None),
        ("hard-label on the final number", unseen, finals, HardLabelSettings()),
        ("hard-label on the worked solution", unseen, data, HardLabelSettings()),
        ("locum reasoning, answering at once", unseen, data, ReasoningSettings()),
        ("locum reasoning, asked to think", thinking, data, ReasoningSettings()),
    ]
    for name, questions, learned, method in asked:
        if not bench.wanted(name):
            continue
        student, took = bench.base, {}
        if method is not None:
            folder = home / ("locum-reasoning" if method.name == "reasoning" else name.replace(" ", "-"))
            took = bench.train(folder, method, learned, bench.base, epochs=args.reasoning_epochs)
            student = folder / "student"
        tests = worked(questions, len(rows), audited=True)
        said = answers(StudentFiles(student), tests, home / f"asked-{name.replace(' ', '-')}")
        right = [final(text_of(a)) == final(r["answer"]) for a, r in zip(said, unseen, strict=True)]
        tokens = sum(a.output_tokens for a in said) / len(said)
        yield {"name": name, "part": "reasoning", **took, "accuracy": round(sum(right) / len(right), 4),
               "output_tokens": round(tokens, 1), "tested": len(right)}  # fmt: skip


def final(text: str) -> str:
    """The last number in a text as it is compared, "" where there is none: 1,200.0 is 1200."""
    numbers = NUMBER.findall(text)
    return f"{float(numbers[-1].replace(',', '')):g}" if numbers else ""


PARTS = {"intents": intents, "whitebox": whitebox, "reasoning": reasoning, "synthetic": synthetic}


def same_settings(home: Path, settings: Row) -> None:
    """Notes in ``home`` what its students are made with. Raises SystemExit where they were made otherwise."""
    home.mkdir(parents=True, exist_ok=True)
    note = home / "settings.json"
    if note.exists() and (before := json.loads(note.read_bytes())) != settings:
        other = ", ".join(f"{k}: {before.get(k)}, now {v}" for k, v in settings.items() if before.get(k) != v)
        raise SystemExit(f"what is kept in {home} was made with other settings ({other}); give another --home")
    note.write_text(json.dumps(settings))


def show(rows: Sequence[Row], console: Console) -> None:
    for part in PARTS:
        found = [r for r in rows if r["part"] == part]
        if not found:
            continue
        columns = list(dict.fromkeys(c for r in found for c in r if c != "part"))
        view = Table(title=part, header_style="bold")
        for column in columns:
            view.add_column(column)
        for row in found:
            view.add_row(*("" if row.get(c) is None else str(row[c]) for c in columns))
        console.print(view)


def main(given: Sequence[str] | None = None) -> None:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--data", type=Path, required=True, help="folder with the recorded traffic")
    about.add_argument("--out", type=Path, required=True)
    about.add_argument("--home", type=Path, required=True, help="students and answers are kept here")
    about.add_argument("--part", action="append", choices=list(PARTS), help="repeat for several; without it all")
    about.add_argument("--only", action="append", default=[], metavar="NAME", help="methods whose name begins so")
    about.add_argument("--labels", type=int, default=3000, help="intents: messages to learn from")
    about.add_argument("--test", type=int, default=2000, help="intents: unseen messages")
    about.add_argument("--epochs", type=float, default=3.0, help="intents: passes over them")
    about.add_argument("--texts", type=int, default=500, help="whitebox: texts to learn from, once")
    about.add_argument("--unseen-texts", type=int, default=100)
    about.add_argument("--whitebox-rate", type=float, default=5e-4)
    about.add_argument("--log", type=int, default=800, help="synthetic: messages in the log that the teacher answered")
    about.add_argument("--audits", type=int, default=400, help="synthetic: audited ones beside them")
    about.add_argument("--per-kind", type=int, default=20, help="synthetic: rows wanted of a weak kind")
    about.add_argument("--problems", type=int, default=500, help="reasoning: problems to learn from")
    about.add_argument("--unseen-problems", type=int, default=150)
    about.add_argument("--reasoning-epochs", type=float, default=2.0)
    about.add_argument("--seed", type=int, default=0)
    args, console = about.parse_args(given), Console()
    how = {k: v for k, v in vars(args).items() if k not in ("data", "out", "home", "part", "only")}
    same_settings(args.home, how)
    bench = Bench(args, console, base_student(STUDENT, Settings.from_env().cache))
    rows: list[Row] = []
    for part in args.part or PARTS:
        for row in PARTS[part](bench):
            rows.append(row)
            console.print(row)
    show(rows, console)
    write_result(args.out, "distil", conditions(**how, student="SmolLM2-135M-Instruct"), rows)


if __name__ == "__main__":
    main()
