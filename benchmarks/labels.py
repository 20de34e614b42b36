"""The loop with a served teacher that may not be learnt from, and a label teacher that agrees with it more or less.

    python benchmarks/labels.py --data ../shared/data --out benchmarks/results/labels.json

Banking77's messages come in a drawn order; the served teacher's answer is the intent by people, and nothing is trained
on it. What is served by the teacher and was not audited is answered again by the label teacher, and a label head
(router.heads) learns from that alone, in a round at 500 new rows, or a quarter more. Thresholds are certified on the
audited requests against the served teacher (router.scoring.statistics.thresholds.for_parity, the next 1,000 requests);
above it the head serves. A fifth is audited until something serves, then 2%, and 1% of what the head would serve is
explored, as the defaults say.

Simulated: the order, and the label teacher. It says what the served teacher says in so many cases ("agrees") and else
another intent: one drawn for each message ("at random": a student averages that out), or for some intents always the
one that is most like it ("by intent": no student can know better). "gpt-4" is no simulation: its recorded answers to
3,043 of the messages, against the intents by people.

Beside "locum" stand the same head with the loosest threshold whose point estimate holds the floor on the same audits,
and what such a policy does without a label teacher: it never learns. The bill is the served teacher's for what it
answers and for audits, and the label teacher's, at its usual price and in batches.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt
from harness import Row, conditions, read_jsonl, write_result
from rich.console import Console
from rich.table import Table

from distiller.config import DatasetConfig
from router.contracts.prices import Price
from router.contracts.records import Usage
from router.heads.answers import Fields, fields_of
from router.heads.head import LabelHead
from router.pricing import cost_usd
from router.scoring.statistics.thresholds import for_parity
from router.scoring.text.encoder import Encoder, load_encoder
from router.scoring.text.features import Features, extract
from router.settings import Settings

FLOOR, CONFIDENCE, OVER = 0.95, 0.95, 1000
WARMUP, RATE, EXPLORE = 0.2, 0.02, 0.01
AGREES = (1.0, 0.95, 0.9, 0.8)
GROWTH = 1.5
"""Of the audits, from which on thresholds are certified anew."""
DEV_SHARE = DatasetConfig().dev_share
"""Kept out of training, and so never asked of the label teacher."""
FIRST_ROUND = 500
LAST = 2000
SERVED = Price(input=Decimal("1.25"), output=Decimal(10))
LABELS = Price.model_validate(
    {"input": "0.15", "output": "0.60", "tiers": {"batch": {"input": "0.075", "output": "0.30"}}}
)
"""USD per million: a frontier model, and open weights at a provider's."""
INTENTS_TOKENS, ANSWER_TOKENS = 420, 6
"""Of a system prompt that lists 77 intents, and of an answer."""
SYSTEM = "Name the intent of the customer's message."
LOCUM, POINT, NONE = "locum", "point estimate", "no label teacher"

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Message:
    """``served`` is the served teacher's answer, ``label`` the label teacher's."""

    features: Features
    served: str
    label: str

    @property
    def usage(self) -> Usage:
        return Usage(input_tokens=INTENTS_TOKENS + self.features.input_tokens, output_tokens=ANSWER_TOKENS)


@dataclass(slots=True)
class Course:
    """What became of a stream: by whom each message was answered, and whether the head's answer was the teacher's."""

    by_head: list[bool] = field(default_factory=list)
    wrong: list[bool] = field(default_factory=list)
    labelled: list[int] = field(default_factory=list)
    paid_audits: int = 0
    rounds: int = 0

    def share(self, last: int | None = None) -> float:
        return float(np.mean(self.by_head[-last:] if last else self.by_head))

    def parity(self, last: int | None = None) -> float:
        return 1 - float(np.mean(self.wrong[-last:] if last else self.wrong))


def features_of(text: str) -> Features:
    return extract({"messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]})


def fields(answer: str) -> Fields | None:
    return fields_of({"content": answer})


def at_random(rows: Sequence[Row], agrees: float, seed: int) -> list[str]:
    """Another intent for so many messages, drawn for each."""
    draw, intents = random.Random(seed), sorted({row["gold"] for row in rows})
    wrong = set(draw.sample(range(len(rows)), round((1 - agrees) * len(rows))))
    return [
        draw.choice([i for i in intents if i != r["gold"]]) if n in wrong else r["gold"] for n, r in enumerate(rows)
    ]


def by_intent(rows: Sequence[Row], agrees: float, encoder: Encoder) -> list[str]:
    """Always the likest intent for some of them, those that have one most alike first, until so many messages are."""
    vectors: dict[str, list[npt.NDArray[np.float32]]] = {}
    for row in rows:
        vectors.setdefault(row["gold"], []).append(encoder.encode(row["text"]))
    names = sorted(vectors)
    means = np.stack([np.mean(vectors[name], axis=0) for name in names])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    alike = means @ means.T - 2 * np.eye(len(names))
    times, taken, wrong = Counter(row["gold"] for row in rows), dict[str, str](), 0
    for i in np.argsort(-alike.max(axis=1)):
        name, other = names[i], names[int(alike[i].argmax())]
        if name in taken.values() or other in taken or wrong + times[name] > (1 - agrees) * len(rows) * 1.05:
            continue
        taken[name], wrong = other, wrong + times[name]
    return [taken.get(row["gold"], row["gold"]) for row in rows]


def threshold(name: str, scores: Floats, right: Bools) -> float:
    """From which score on the head serves."""
    if name == LOCUM:
        return for_parity(scores, None, right, FLOOR, CONFIDENCE, over=OVER).route
    wrong, most = np.sort(scores[~right])[::-1], int((1 - FLOOR) * len(scores))
    return float(np.nextafter(wrong[most], np.inf)) if most < len(wrong) else 0.0


@dataclass(slots=True)
class Loop:
    """One stream through one way of setting thresholds."""

    name: str
    messages: Sequence[Message]
    encoder: Encoder
    seed: int

    def run(self) -> Course:
        course, draw, audited = Course(), random.Random(self.seed), list[int]()
        scores, right = np.zeros(len(self.messages)), np.zeros(len(self.messages), np.bool_)
        due, tuned_at, at, head = FIRST_ROUND, 0, 2.0, None
        for place in range(len(self.messages)):
            serves = head is not None and scores[place] >= at
            audit = draw.random() < (RATE if at <= 1 else WARMUP)
            by_head = serves and draw.random() >= EXPLORE
            course.by_head.append(by_head)
            course.wrong.append(by_head and not right[place])
            course.paid_audits += by_head and audit
            if audit:
                audited.append(place)
            elif not by_head and draw.random() >= DEV_SHARE:
                course.labelled.append(place)
            learns = len(course.labelled) >= due and self.name != NONE
            if learns:
                due, head = len(course.labelled) + max(FIRST_ROUND, due // 4), self._fitted(course.labelled)
                course.rounds += 1
                self._answer(head, [*audited, *range(place + 1, len(self.messages))], scores, right)
            if head is not None and (learns or len(audited) >= GROWTH * tuned_at):
                tuned_at, at = len(audited), threshold(self.name, scores[audited], right[audited])
        return course

    def _answer(self, head: LabelHead | None, places: Sequence[int], scores: Floats, right: Bools) -> None:
        """What the head says of these messages, and whether that is the served teacher's answer."""
        if head is None:
            return
        said = head.answers([self.messages[i].features for i in places], head.inputs.reader(self.encoder))
        for place, one in zip(places, said, strict=True):
            scores[place], right[place] = one.score, one.fields == fields(self.messages[place].served)

    def _fitted(self, labelled: Sequence[int]) -> LabelHead | None:
        learnt = [self.messages[i] for i in labelled]
        return LabelHead.fit([m.features for m in learnt], [fields(m.label) for m in learnt], self.encoder)


def bill(course: Course, messages: Sequence[Message]) -> Row:
    """USD for the whole stream, and what of the teacher's alone is saved, with labels at the usual price and in
    batches."""
    alone = [cost_usd(m.usage, SERVED) for m in messages]
    served = sum((usd for usd, by_head in zip(alone, course.by_head, strict=True) if not by_head), Decimal(0))
    served += course.paid_audits * sum(alone, Decimal(0)) / len(messages)
    found: Row = {"usd_alone": float(sum(alone, Decimal(0))), "usd_served": float(served)}
    for how, tier in (("plain", None), ("batch", "batch")):
        usd = Decimal(0)
        for place in course.labelled if course.rounds else ():
            usage = messages[place].usage
            usage.service_tier = tier
            usd += cost_usd(usage, LABELS)
        found |= {f"usd_labels_{how}": float(usd), f"saved_{how}": 1 - float((served + usd) / sum(alone, Decimal(0)))}
    return found


@dataclass(frozen=True, slots=True)
class Stream:
    """Messages in a drawn order, whose ``last`` are told apart."""

    errors: str
    messages: Sequence[Message]
    seed: int
    last: int = LAST

    def cell(self, name: str, encoder: Encoder) -> Row:
        course = Loop(name, self.messages, encoder, self.seed).run()
        agreed = float(np.mean([m.served == m.label for m in self.messages]))
        return {
            "name": name,
            "errors": self.errors,
            "seed": self.seed,
            "agrees": round(agreed, 4),
            "messages": len(self.messages),
            "share": round(course.share(), 4),
            "parity": round(course.parity(), 4),
            "share_last": round(course.share(self.last), 4),
            "parity_last": round(course.parity(self.last), 4),
            "last": self.last,
            "labelled": len(course.labelled) if course.rounds else 0,
            "rounds": course.rounds,
            **{key: round(value, 4) for key, value in bill(course, self.messages).items()},
        }


def streams(data: Path, encoder: Encoder, seed: int) -> Iterator[tuple[Stream, tuple[str, ...]]]:
    """Each with the ways of setting thresholds that it goes through."""
    rows = read_jsonl(data / "banking77.jsonl.gz")
    random.Random(seed).shuffle(rows)
    read = [features_of(row["text"]) for row in rows]

    def stream(errors: str, labels: Sequence[str], places: Sequence[int], last: int = LAST) -> Stream:
        messages = [Message(read[i], rows[i]["gold"], label) for i, label in zip(places, labels, strict=True)]
        return Stream(errors, messages, seed, last)

    whole = range(len(rows))
    yield stream("none", at_random(rows, 1.0, seed), whole), (LOCUM, POINT, NONE)
    for agrees in AGREES[1:]:
        yield stream("at random", at_random(rows, agrees, seed), whole), (LOCUM,)
        yield stream("by intent", by_intent(rows, agrees, encoder), whole), (LOCUM,)
    asked = [i for i, row in enumerate(rows) if row.get("gpt4")]
    yield stream("none, short", [rows[i]["gold"] for i in asked], asked, LAST // 2), (LOCUM,)
    yield stream("gpt-4", [rows[i]["gpt4"] for i in asked], asked, LAST // 2), (LOCUM, POINT)


def show(rows: Sequence[Row]) -> None:
    table = Table("", "errors", "agrees", "share", "parity", "last: share", "parity", "labels", "saved", "by batch")
    for r in rows:
        shares = (f"{r[k]:.1%}" for k in ("agrees", "share", "parity", "share_last", "parity_last"))
        table.add_row(
            r["name"], r["errors"], *shares, str(r["labelled"]), f"{r['saved_plain']:.1%}", f"{r['saved_batch']:.1%}"
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with banking77.jsonl.gz")
    parser.add_argument("--out", type=Path, help="the result file")
    parser.add_argument("--seed", type=int, action="append", help="of the order; repeat for several (0, 1)")
    args = parser.parse_args()
    encoder = load_encoder(Settings.from_env().cache)
    seeds = args.seed or [0, 1]
    found = []
    for seed in seeds:
        for stream, names in streams(args.data, encoder, seed):
            found += [stream.cell(name, encoder) for name in names]
            show(found[-len(names) :])
    show(found)
    if args.out:
        prices = {"usd_per_million_served": [1.25, 10], "usd_per_million_labels": [0.15, 0.60], "batch": 0.5}
        told = conditions(
            data="Banking77", floor=FLOOR, confidence=CONFIDENCE, over=OVER, audits=[WARMUP, RATE], explore=EXPLORE,
            first_round=FIRST_ROUND, seeds=seeds, simulated="the order, and the label teacher but for gpt-4", **prices,
        )  # fmt: skip
        write_result(args.out, "labels", told, found)


if __name__ == "__main__":
    main()
