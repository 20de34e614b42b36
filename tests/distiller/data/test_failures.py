"""Kinds of requests that the student fails at are named, and their rows count more, within bounds."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from distiller.config import DatasetConfig
from distiller.data.dataset import build, load, read
from distiller.data.failures import PRIOR, Failures
from distiller.data.rows import DatasetRow, row_of
from router.contracts.records import Audit, Record
from router.judges.judge import Judges
from tests.distiller.tiny_student import policy, record

KINDS = {
    "refund": "refund the damaged order and return my money to the account",
    "visa": "which visa papers does the embassy want for travel abroad",
    "poem": "write a cheerful poem about autumn leaves and quiet rivers",
}


def asked(kind: str, n: int) -> str:
    drawn = random.Random(n)
    said = KINDS[kind].split()
    drawn.shuffle(said)
    return " ".join([*said, *(f"{drawn.getrandbits(30):x}" for _ in range(3))])


def verdict(kind: str, n: int, ok: bool, task: str | None = None) -> Record:
    base = record(n, asked(kind, n), f"answer {n}", audited=True, user=f"u{n}")
    return replace(base, audit=Audit(acceptable=ok), task=task)


def judged(rates: dict[str, float], each: int = 40, task: str | None = None) -> list[Record]:
    return [
        verdict(kind, 1000 * k + i, i >= rate * each, task)
        for k, (kind, rate) in enumerate(rates.items())
        for i in range(each)
    ]


def rows(records: list[Record]) -> list[DatasetRow]:
    found = [row_of(r, policy(), Judges(policy().judge)) for r in records]
    return [r for r in found if isinstance(r, DatasetRow)]


def test_a_kind_counts_as_its_failures_over_the_average_drawn_to_it_where_verdicts_are_few() -> None:
    found = Failures.of(rows(judged({"refund": 0.75, "visa": 0.25, "poem": 0.05})), 3.0, lambda: None)
    (kind,) = found.failing
    assert set(kind.name.split()) <= set(KINDS["refund"].split())
    assert (kind.judged, kind.failed, kind.rate) == (40, 30, 0.75)
    overall = 42 / 120
    assert kind.weight == pytest.approx((30 + PRIOR * overall) / (40 + PRIOR) / overall, abs=0.001)


def test_no_row_counts_less_than_once_or_more_than_the_most() -> None:
    found = Failures.of(rows(judged({"refund": 1.0, "visa": 0.0, "poem": 0.0}, each=60)), 2.0, lambda: None)
    assert [kind.weight for kind in found.failing] == [2.0]
    assert Failures.of(rows(judged({"refund": 1.0, "visa": 0.0})), 1.0, lambda: None).failing == ()


def test_nothing_is_said_of_kinds_where_few_answers_were_wrong() -> None:
    assert Failures.of(rows(judged({"refund": 0.2, "visa": 0.0})), 3.0, lambda: None).failing == ()
    assert Failures().place(rows(judged({"visa": 0.0}, each=2))) == [None, None]


def test_a_task_tag_is_a_kind_where_no_words_tell_its_requests_apart() -> None:
    plain = [replace(verdict("poem", i, i > 15, "rhyme"), task="rhyme") for i in range(20)]
    other = [verdict("visa", 100 + i, True, "travel") for i in range(60)]
    found = Failures.of(rows([*plain, *other]), 3.0, lambda: None)
    assert {kind.name.split(":")[0] for kind in found.failing} == {"rhyme"}


def test_training_rows_of_a_failing_kind_weigh_more_and_what_measures_does_not(tmp_path: Path) -> None:
    audits = judged({"refund": 0.75, "visa": 0.25, "poem": 0.05})
    fresh = [record(5000 + i, asked(kind, 5000 + i), "x", user=f"v{i}") for i, kind in enumerate([*KINDS] * 40)]
    found = build([*audits, *fresh], policy(), tmp_path, DatasetConfig(dev_share=0.2))
    (kind,) = found.failing
    assert load(tmp_path).failing == (kind,) and kind.weight > 1.5
    train = read(found.train)
    heavy = [row for row in train if row.weight > 1]
    assert {row.weight for row in heavy} == {kind.weight} and {row.cluster for row in heavy} == {kind.name}
    assert all("refund" in row.messages[0]["content"] for row in heavy)
    refunds = [row for row in train if "refund" in row.messages[0]["content"]]
    assert len(heavy) >= 0.9 * len(refunds) > 0
    assert {row.weight for row in [*read(found.dev), *read(found.holdout)]} == {1.0}
