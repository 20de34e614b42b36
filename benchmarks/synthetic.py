"""What requests written for failing kinds bring: the `synthetic` part of `distil.py`, with a simulated teacher.

No language model that can write Banking77's messages is at hand, so the teacher is simulated: asked for new requests
like those it is shown, it gives the nearest of the messages that were held back from everything else, and answers
with their recorded gold label. The log, the search for weak kinds, the filters and the budget are the product's own.
What is measured is therefore where more data goes, not how well a model invents it. `as many at random` are labels of
held-back messages drawn without looking: as they come, where no intent is rare, and with the rare ones as seldom as in
the log, which is what more of the same traffic brings.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from harness import Body, ReplayServer, Row, last_user_text, read_jsonl
from intents import DATASET, answers, messages, policy, rightness, text_of

from distiller.bundles import StudentFiles
from distiller.data.dataset import Dataset, build
from distiller.progress import ConsoleProgress
from distiller.synthesis.prompts import ASKED
from distiller.synthesis.run import synthesize
from distiller.synthesis.shelf import kept
from router.contracts.decision import Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record
from router.policy.distillation import HardLabelSettings
from router.scoring.text.encoder import Encoder, load_encoder
from router.settings import Settings
from router.store.access import open_store

if TYPE_CHECKING:
    from distil import Bench

USD = Decimal(5)
RARE, OF_RARE = 15, 3
"""So many intents have this many messages to learn from each."""
_WRITE = re.compile(r"Write \d+ new requests")
_SHOWN = re.compile(r"<request>\s*(.*?)\s*</request>", re.DOTALL)


@dataclass
class Writer:
    """The simulated teacher: gives each held-back message once, the nearest to what it is shown first."""

    pool: Sequence[Row]
    encoder: Encoder
    given: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._labels = {r["text"].strip(): r["gold"] for r in self.pool}
        self._vectors = np.stack([self.encoder.encode(r["text"]) for r in self.pool])

    def reply(self, body: Body) -> str:
        asked = last_user_text(body)
        if not _WRITE.search(asked):
            return str(self._labels[asked.strip()])
        shown = np.stack([self.encoder.encode(text) for text in _SHOWN.findall(asked)])
        nearest = np.argsort(-(self._vectors @ shown.T).max(axis=1))
        fresh = [i for i in nearest.tolist() if i not in self.given][:ASKED]
        self.given.update(fresh)
        return "\n".join(f"<request>{self.pool[i]['text']}</request>" for i in fresh)


def audited(record: Record, said: str, *, right: bool) -> Record:
    """The record with the student's answer and the verdict on it."""
    answer = Answer(
        tier=Tier.STUDENT, kind=AnswerKind.AUDITED, model="s", message={"role": "assistant", "content": said}
    )
    return replace(record, audit=Audit(answer=answer, acceptable=right, judge="normalised"))


def logged(records: Sequence[Record], settings: Settings, url: str) -> None:
    """Puts the records into the store, as the proxy would have."""
    store = open_store(settings, [policy(url)])

    async def write() -> None:
        for record in records:
            store.append(record)
        await store.flush()

    asyncio.run(write())
    store.close()


def synthetic(bench: Bench) -> Iterator[Row]:
    """A student whose log is thin in places, trained again with what was written for it, or with as much at random."""
    args, home = bench.args, bench.args.home / "synthetic"
    rows = read_jsonl(args.data / "banking77.jsonl.gz")
    draw = random.Random(args.seed + 2)
    draw.shuffle(rows)
    rare = set(draw.sample(sorted({r["gold"] for r in rows}), RARE))
    unseen, measured, rest = rows[: args.test], rows[args.test :][: args.audits], rows[args.test + args.audits :]
    few = [r for intent in sorted(rare) for r in [r for r in rest if r["gold"] == intent][:OF_RARE]]
    taught = [*few, *[r for r in rest if r["gold"] not in rare][: args.log - len(few)]]
    known = {r["text"] for r in (*taught, *unseen, *measured)}
    pool = [r for r in rest if r["text"] not in known]
    learnt = messages(taught, "gold")

    def row(name: str, data: Dataset) -> Row:
        folder = home / name.replace(" ", "-")
        took = bench.train(folder, HardLabelSettings(), data, bench.base)
        said = answers(StudentFiles(folder / "student"), messages(unseen, "gold", len(rows), audited=True), folder)
        right = rightness(said, unseen)
        seldom = np.array([r["gold"] in rare for r in unseen])
        return {"name": name, "part": "synthetic", **took, "accuracy": round(float(right.mean()), 4),
                "accuracy_rare": round(float(right[seldom].mean()), 4), "tested": len(unseen)}  # fmt: skip

    yield row("the log alone", bench.dataset(home / "dataset-log", learnt))
    student = StudentFiles(home / "the-log-alone" / "student")
    asked = messages(measured, "gold", 2 * len(rows), audited=True)
    said = answers(student, asked, home / "audits")
    told = zip(asked, said, rightness(said, measured).tolist(), strict=True)
    audits = [audited(record, text_of(answer), right=right) for record, answer, right in told]
    data, report = written(bench, [*learnt, *audits], pool, home)
    yield {**row("locum synthetic (simulated teacher)", data), **report}
    count, seldom = report["written"], round(report["written"] * len(few) / len(taught))
    parts = [[r for r in pool if (r["gold"] in rare) is wanted] for wanted in (True, False)]
    evenly = draw.sample(pool, count)
    as_logged = [*draw.sample(parts[0], seldom), *draw.sample(parts[1], count - seldom)]
    for name, more in (("random", evenly), ("random, rare ones as seldom as in the log", as_logged)):
        folder = home / f"dataset-{name.replace(' ', '-')}"
        yield row(f"as many at {name}", bench.dataset(folder, [*learnt, *messages(more, "gold", 3 * len(rows))]))


def written(bench: Bench, log: Sequence[Record], pool: Sequence[Row], home: Path) -> tuple[Dataset, Row]:
    """The log's dataset with what the teacher writes for its weak kinds, and how much that was."""
    settings = Settings.from_env({**os.environ, "LOCUM_HOME": str(home / "locum")})
    encoder = partial(load_encoder, settings.cache)
    with (
        ReplayServer("recorded-labels", Writer(pool, encoder()).reply) as teacher,
        ConsoleProgress(bench.console) as tell,
    ):
        asks = policy(teacher.url)
        if not kept(settings, asks):
            if not settings.records_db.exists():
                logged(log, settings, teacher.url)
            synthesize(asks, settings, os.environ, usd=USD, encoder=encoder, tell=tell, per_cluster=bench.args.per_kind)
        rows = kept(settings, asks)
        data = build(log, asks, home / "dataset-synthetic", DATASET, written=rows)
    return data, {"written": len(rows)}
