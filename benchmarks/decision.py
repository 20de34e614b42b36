"""What one routing decision costs: CPU time by part, beside the usual ways of classifying a prompt.

A decision is everything between a parsed request and a tier: reading the request (features), the score, and the
policy's decision. Of the score's time three parts are shown apart: the words' embedding (encoder), the hashed
n-grams, and asking the remembered neighbours, each for the message alone. The scorer is the dearest that there is:
labels of both tiers, so two heads; every request has a known task tag; and the memory of neighbours is full.
Parsing the JSON is shown apart, since a proxy parses whether it routes or not. CPU time, not wall time, and one
thread, as a proxy computes.

Every prompt is written by a seeded generator (common words, inflected ones, names, numbers, invented
words), and each is used for one measurement only, so that no cache of whole texts helps. "new context"
gives each request a system prompt that was never seen before; "same context" gives all the same one, which
is what an application's traffic looks like: what is known of a context is remembered.

    python benchmarks/decision.py --out benchmarks/results/decision.json
    python benchmarks/decision.py --tokens 60 --skip-baselines --out /tmp/decision.json
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from harness import Row, conditions, write_result
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from router.contracts.bundles import Thresholds
from router.policy.policy import Policy
from router.routing.decision import Facts, RequestView, decide
from router.scoring.model import Example
from router.scoring.neighbours import MEMORY
from router.scoring.scorer import Scorer
from router.scoring.text.encoder import Encoder, load_encoder
from router.scoring.text.features import USER_WINDOW, Features, extract, window
from router.scoring.text.ngrams import hashed_ngrams
from router.scoring.text.transformer import SOURCE
from router.settings import Settings

COMMON = (  # noqa: SIM905 - 180 literals would be no list to read
    "the of and to in a is that for it was on are as with his they at be this from have or by one had not but what "
    "all were when we there can an your which their said if do will each about how up out them then she many some "
    "so these would other into has more her two like him see time could no make than first been its who now people "
    "my made over did down only way find use may water long little very after words called just where most know get "
    "through back much before go good new write our used me man too any day same right look think also around "
    "another came come work three word must because does part even place well such here take why things help put "
    "years different away again off went old number great tell men say small every found still between name should "
    "mister home big give air line set own under read last never us left end along while might next sound below saw "
    "something thought both few those always looked show large often together asked house world going want school"
).split()
STEMS = (  # noqa: SIM905
    "account act add answer appear balance bank bill book build call cancel card carry change charge check clean "
    "close collect compare complete confirm connect consider contract cost count cover create deliver depend design "
    "develop discuss dispute draft enter estimate expect explain export extend fail fill final follow form grant "
    "happen improve include inform insure interest invoice invest issue join judge launch learn limit list log mail "
    "manage mark measure mention merge move note notice offer open order owe pack park pay perform plan point post "
    "prepare present price print process produce project protect prove provide publish purchase question quote reach "
    "receive record recover refund register reject release remain remind remove rent repair replace reply report "
    "request require research reserve resolve respond rest result return review save search select send serve settle "
    "ship sign sort state stop store submit suggest supply support switch test ticket total trace track trade train "
    "transfer translate travel treat trust turn update upgrade value verify view visit wait walk warn watch work"
).split()
ENDINGS = ("", "", "s", "s", "ed", "ing", "er", "ment", "able", "ly", "less", "ness")
NAMES = "Amara Bruno Chiara Dmitri Elif Farid Greta Hana Inês Jonas Keiko Łucja Márta Nils Oluwa Priya".split()  # noqa: SIM905
SYLLABLES = "ba cor den fi gra hul jo kem lin mor nax pel qui ros tav uz vel wyn xi zor".split()  # noqa: SIM905
LABELS = MEMORY
"""Judged requests that the scorer and the baselines are fitted on: as many as are remembered as neighbours."""
TASK = {"task": "support"}
PARTS = ("features", "score", "encoder", "ngrams", "neighbours", "decide", "total", "parse")


class Writer:
    """Writes prompts that look like English to a tokenizer: seeded, never the same one twice."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        ranked = [*COMMON, *(f"{s}{e}" for e in ENDINGS for s in STEMS)]
        self._words = ranked
        self._weights = [1 / (rank + 10) for rank in range(len(ranked))]  # Zipf and Mandelbrot's law

    def prompt(self, tokens: int) -> str:
        """About ``tokens`` tokens of sentences, with an odd line break."""
        sentences, count = [], 0
        while count < tokens:
            words = self._sentence()
            count += round(1.25 * len(words)) + 1
            sentences.append(" ".join(words) + self._random.choice((". ", ". ", "? ", "! ", ".\n")))
        return "".join(sentences)

    def body(self, tokens: int, system: str) -> Row:
        """A chat-completions request whose user turn has about ``tokens`` tokens."""
        turns = [{"role": "system", "content": system}, {"role": "user", "content": self.prompt(tokens)}]
        return {"model": "default", "messages": turns, "max_tokens": 256, "metadata": TASK}

    def _sentence(self) -> list[str]:
        r = self._random
        words = r.choices(self._words, self._weights, k=r.randint(6, 16))
        at = r.randrange(1, len(words))
        odd = r.random()
        if odd < 0.25:
            words[at] = str(r.randrange(10 ** r.randint(1, 6)))
        elif odd < 0.45:
            words[at] = r.choice(NAMES)
        elif odd < 0.6:
            words[at] = "".join(r.choices(SYLLABLES, k=3))
        if r.random() < 0.4:
            words[at - 1] += ","
        return [words[0].capitalize(), *words[1:]]


def cpu_us(work: Callable[[Any], object], given: Sequence[Any]) -> float:
    """CPU microseconds of this thread for each item of ``given``, on average."""
    start = time.thread_time_ns()
    for item in given:
        work(item)
    return (time.thread_time_ns() - start) / len(given) / 1000


def measured(work: Callable[[Any], object], blocks: Iterator[Sequence[Any]]) -> float:
    """The lower quartile over blocks of fresh items: what other processes on the machine add is left out.

    All blocks are made first, since writing prompts in between would cool the processor's caches.
    """
    times = [cpu_us(work, block) for block in list(blocks)]
    return statistics.quantiles(times, n=4)[0] if len(times) > 1 else times[0]


class Bench:
    """One size of prompt: measures each part of our decision, and the baselines, on prompts of its own."""

    def __init__(self, args: argparse.Namespace, tokens: int, scorer: Scorer, encoder: Encoder) -> None:
        self.tokens, self.scorer, self.encoder = tokens, scorer, encoder
        self.policy = Policy.model_validate(
            {
                "name": "default",
                "student": {"model": "small", "engine": "embedded", "usd_per_million": {"input": 0.02, "output": 0.06}},
                "teacher": {"model": "openai/large", "training_rights": "unknown"},
                "objective": {"threshold": 0.6},
            }
        )
        self._thresholds = Thresholds(route=0.6, accept=0.0)
        self._writer = Writer(args.seed + tokens)
        self._blocks = args.blocks
        self._size = max(4, min(args.block, 4000 // tokens))
        self._system = self._writer.prompt(60)

    def bodies(self, same_context: bool) -> Iterator[list[Row]]:
        for _ in range(self._blocks):
            yield [
                self._writer.body(self.tokens, self._system if same_context else self._writer.prompt(60))
                for _ in range(self._size)
            ]

    def texts(self, blocks: int, size: int) -> Iterator[list[str]]:
        for _ in range(blocks):
            yield [self._writer.prompt(self.tokens) for _ in range(size)]

    def windows(self) -> Iterator[list[str]]:
        """What the encoder and the n-grams see of a prompt."""
        for block in self.texts(self._blocks, self._size):
            yield [window(text, USER_WINDOW) for text in block]

    def decision(self, body: Row) -> object:
        features = extract(body)
        return self._decide(body, features, self.scorer.score(features))

    def _decide(self, body: Row, features: Features, score: float) -> object:
        state = Facts(score=score, thresholds=self._thresholds, propensity=0.02)
        return decide(self.policy, RequestView(features, body), state)

    def ours(self, same_context: bool) -> Row:
        bodies = partial(self.bodies, same_context)
        near = self.scorer.learned.neighbours
        read = [[(b, extract(b)) for b in block] for block in bodies()]
        vectors = ([self.encoder.encode(text) for text in block] for block in self.windows())
        parse = ([orjson.dumps(b) for b in block] for block in bodies())
        return {
            "features": measured(extract, bodies()),
            "score": measured(lambda given: self.scorer.score(given[1]), iter(read)),
            "encoder": measured(self.encoder.encode, self.windows()),
            "ngrams": measured(lambda text: hashed_ngrams(text, ""), self.windows()),
            "neighbours": measured(lambda vector: near and near.ask(vector, TASK["task"]), vectors),
            "decide": measured(lambda given: self._decide(*given, 0.7), iter(read)),
            "total": measured(self.decision, bodies()),
            "parse": measured(orjson.loads, parse),
        }


def labelled(writer: Writer, seed: int) -> tuple[list[Row], list[Example]]:
    """Requests and their examples: whether student and teacher were right depends on what is in them, so that there
    is something to fit."""
    rng = random.Random(seed)
    system = writer.prompt(60)
    bodies = [writer.body(rng.choice((20, 60, 120)), system) for _ in range(LABELS)]
    examples = []
    for body in bodies:
        text = body["messages"][1]["content"]
        student, teacher = ("because" in text) + ("explain" in text) + rng.random() < 0.8, rng.random() < 0.95
        examples.append(Example(extract(body), None, student or not teacher, student=student, teacher=teacher))
    return bodies, examples


def sklearn_baselines(texts: Sequence[str], labels: Sequence[bool]) -> dict[str, Callable[[str], object]]:
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    made = {
        "scikit-learn TF-IDF (words 1-2) + LR": TfidfVectorizer(ngram_range=(1, 2)),
        "scikit-learn TF-IDF (characters 3-5) + LR": TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)),
        "scikit-learn hashing (words 1-2) + LR": HashingVectorizer(ngram_range=(1, 2), n_features=2**18),
    }
    found: dict[str, Callable[[str], object]] = {}
    for name, vectorizer in made.items():
        pipe = make_pipeline(vectorizer, LogisticRegression(max_iter=200)).fit(texts, labels)
        found[name] = lambda text, pipe=pipe: pipe.predict_proba([text])
    return found


def minilm_baseline(texts: Sequence[str], labels: Sequence[bool]) -> dict[str, Callable[[str], object]]:
    """all-MiniLM-L6-v2 in torch, and logistic regression on it; nothing where the packages are missing."""
    from importlib.util import find_spec

    spec = find_spec(SOURCE)
    if spec is None or spec.origin is None or not find_spec("sentence_transformers"):
        return {}
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from sklearn.linear_model import LogisticRegression

    torch.set_num_threads(1)
    layer = Transformer(str(Path(spec.origin).parent / "model"))
    model = SentenceTransformer(modules=[layer, Pooling(layer.get_embedding_dimension())], device="cpu")
    regression = LogisticRegression(max_iter=200).fit(model.encode(texts[:64]), np.array(labels[:64]))
    return {
        f"all-MiniLM-L6-v2 in torch (first {model.max_seq_length} tokens) + LR": lambda text: regression.predict_proba(
            model.encode([text], show_progress_bar=False)
        )
    }


def run(args: argparse.Namespace) -> list[Row]:
    encoder = load_encoder(Settings.from_env().cache)
    writer = Writer(args.seed)
    bodies, examples = labelled(writer, args.seed)
    scorer = Scorer.fit(examples, encoder)
    texts, labels = [b["messages"][1]["content"] for b in bodies], [e.acceptable for e in examples]
    others = {} if args.skip_baselines else sklearn_baselines(texts, labels) | minilm_baseline(texts, labels)
    rows = []
    for tokens in args.tokens:
        bench = Bench(args, tokens, scorer, encoder)
        warm = Bench(args, 500, scorer, encoder)
        for block in warm.bodies(same_context=False):  # what any process knows after its first minutes
            for body in block:
                warm.decision(body)
        for context in ("same", "new"):
            found = bench.ours(context == "same")
            rows.append({"name": "locum", "tokens": tokens, "context": context} | _rounded(found))
        for name, work in others.items():
            blocks = bench.texts(3, 5) if "torch" in name else bench.texts(10, 10)
            rows.append({"name": name, "tokens": tokens} | _rounded({"total": measured(work, blocks)}))
    return rows


def _rounded(found: Row) -> Row:
    return {f"{part}_us": round(us, 1) for part, us in found.items()}


def show(rows: Sequence[Row], console: Console) -> None:
    view = Table(title="CPU microseconds a decision, one thread", header_style="bold")
    for column in ("", "tokens", "context", *PARTS):
        view.add_column(column, justify="right")
    for row in rows:
        values = (row.get(f"{part}_us") for part in PARTS)
        cells = ("" if v is None else f"{v:,.1f}" for v in values)
        view.add_row(row["name"], f"{row['tokens']:,}", row.get("context", ""), *cells)
    console.print(view)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the rows")
    parser.add_argument("--tokens", type=int, nargs="+", default=[60, 500, 2000, 8000], help="prompt sizes")
    parser.add_argument("--blocks", type=int, default=20, help="fresh blocks of prompts for each measurement")
    parser.add_argument("--block", type=int, default=50, help="prompts in a block, fewer where they are long")
    parser.add_argument("--skip-baselines", action="store_true", help="our own decision alone: seconds, not minutes")
    parser.add_argument("--note", default="", help="what else the machine was doing, kept in the conditions")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    with threadpool_limits(1, "blas"):
        rows = run(args)
    show(rows, Console())
    about = {"blocks": args.blocks, "seed": args.seed, "labels": LABELS, "note": args.note}
    about["unit"] = "CPU microseconds, one thread"
    write_result(args.out, "decision", conditions(**about), rows)


if __name__ == "__main__":
    main()
