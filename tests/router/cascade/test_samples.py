"""The grey zone: more answers of the student where its first fell short, only if that pays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import OpenAI

from router.cascade.samples import worth_drawing
from router.contracts.bundles import Thresholds, activate
from router.contracts.decision import Deferral, Tier
from router.contracts.records import AnswerKind
from router.scoring.agreement import Agreement
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.signals import summarise
from router.scoring.text.features import extract
from router.settings import Settings
from tests.fakes import Script, World, world
from tests.manifests import complete

DOUBTFUL = -0.7
"""The token log-probability of answers that only samples can tell apart."""


def asked(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    """It has seen: of doubtful answers those are right that samples agree with."""
    rng, examples = np.random.default_rng(0), []
    for i in range(400):
        right, doubtful = bool(rng.uniform() < 0.5), i % 2 == 0
        signals = summarise([DOUBTFUL if doubtful else (-0.001 if right else -3.0)] * 3, complete=True)
        signals.samples, signals.agreement = 2, float(rng.binomial(2, 0.95 if right else 0.1)) / 2
        examples.append(Example(extract(asked(f"question {i % 7}")), signals, right))
    return Scorer.fit(examples, None)


def between(scorer: Scorer) -> float:
    """A threshold that a doubtful answer falls short of alone, and passes with samples that agree."""
    score = scorer.score(extract(asked("question 3")))
    seen = summarise([DOUBTFUL] * 3, complete=True)
    alone, agreed = (scorer.accept(score, replace(seen, samples=2, agreement=a)) for a in (0.0, 1.0))
    assert agreed > alone + 0.2
    return (alone + agreed) / 2


@contextmanager
def serving(folder: Path, scorer: Scorer, samples: int) -> Iterator[World]:
    bundles = Settings(home=folder / "home").bundles("default")
    scorer.save(bundles / "b1" / "scorer")
    complete(bundles, "b1", thresholds=Thresholds(route=0.0, accept=between(scorer)))
    activate(bundles, "b1")
    accept = {"hold_tokens": 24, "samples": samples}
    with world(folder, accept=accept, objective={"parity": {"at_least": 0.9}}) as found:
        yield found


def speaks(world: World, *sampled: str, logprob: float = DOUBTFUL) -> None:
    """The student says "yes it is", and ``sampled`` when it is drawn from."""
    usage = {"prompt_tokens": 100, "completion_tokens": 10}

    def answer(body: dict[str, Any]) -> Script:
        text = "yes it is" if body.get("temperature") != 1.0 else sampled[body["seed"] % len(sampled)]
        return Script(text=text, logprob=logprob, usage=usage)

    world.student.answer = answer
    world.teacher.always(text="no it is not")


def ask(world: World, **fields: Any) -> tuple[str, Any]:
    """The text and the record."""
    with OpenAI(base_url=f"{world.url}/v1", api_key="x", max_retries=0) as client:
        create = client.chat.completions.with_raw_response.create
        raw = create(model="default", **asked("question 3"), temperature=0.3, top_p=0.5, **fields)  # type: ignore[arg-type]
        if fields.get("stream"):
            text = "".join(c.choices[0].delta.content or "" for c in raw.parse() if c.choices)  # type: ignore[attr-defined]
        else:
            text = raw.parse().choices[0].message.content
    return text, world.record(raw.headers["x-locum-request-id"])


@pytest.mark.parametrize("stream", [False, True])
def test_samples_that_agree_save_the_teachers_answer_and_are_paid_for(
    tmp_path: Path, scorer: Scorer, stream: bool
) -> None:
    with serving(tmp_path, scorer, samples=2) as found:
        speaks(found, "Yes it is.", "yes it is")
        text, record = ask(found, stream=stream)
    assert text == "yes it is" and record.tier is Tier.STUDENT and record.deferral is None
    assert (len(found.student.seen), len(found.teacher.seen)) == (3, 0)
    assert [a.kind for a in record.answers] == [AnswerKind.SERVED, AnswerKind.DISCARDED, AnswerKind.DISCARDED]
    assert record.answers[0].signals.agreement == 1.0 and record.answers[0].signals.samples == 2
    assert record.cost_usd == sum(a.cost_usd for a in record.answers) == 3 * record.answers[0].cost_usd > 0
    drawn = [s.body for s in found.student.seen[1:]]
    assert {b["seed"] for b in drawn} == {0, 1} and all("top_p" not in b and not b.get("stream") for b in drawn)


@pytest.mark.parametrize("stream", [False, True])
def test_samples_that_differ_leave_it_to_the_teacher(tmp_path: Path, scorer: Scorer, stream: bool) -> None:
    with serving(tmp_path, scorer, samples=2) as found:
        speaks(found, "perhaps", "who knows")
        text, record = ask(found, stream=stream)
    assert text == "no it is not" and record.deferral is Deferral.CONFIDENCE
    assert (len(found.student.seen), len(found.teacher.seen)) == (3, 1)
    assert [a.kind for a in record.answers] == [AnswerKind.SERVED] + 3 * [AnswerKind.DISCARDED]
    assert record.answer_of(Tier.STUDENT).message["content"] == "yes it is"
    assert record.answer_of(Tier.STUDENT).signals.agreement == 0.0


@pytest.mark.parametrize(
    ("samples", "logprob", "why"),
    [
        (0, DOUBTFUL, "the policy draws none"),
        (1, DOUBTFUL, "the bundle learned from two"),
        (4, -0.0001, "the first answer passes"),
        (4, -6.0, "no agreement could lift it"),
    ],
)
def test_none_are_drawn_where_they_are_not_wanted_or_not_needed(
    tmp_path: Path, scorer: Scorer, samples: int, logprob: float, why: str
) -> None:
    with serving(tmp_path, scorer, samples) as found:
        speaks(found, "yes it is", logprob=logprob)
        ask(found)
    assert len(found.student.seen) == 1, why


def test_a_failed_sample_agrees_with_nothing(tmp_path: Path, scorer: Scorer) -> None:
    with serving(tmp_path, scorer, samples=2) as found:
        speaks(found, "yes it is")
        before = found.student.answer

        def answer(body: dict[str, Any]) -> Script:
            return Script(status=400) if body.get("seed") == 1 else before(body)

        found.student.answer = answer
        _, record = ask(found)
    assert record.answer_of(Tier.STUDENT).signals.agreement == 0.5


def test_the_rule_weighs_what_is_likely_saved_against_what_is_spent() -> None:
    """Half of the doubtful answers are agreed with by both samples, which lifts them to 0.73."""
    head = Agreement(0.0, 2.0, -1.0, 2, (), ((0.5, 0.0, 0.5),))
    dollar = Decimal(1)

    def count(least: float, most: int, student: str) -> int:
        return worth_drawing(head, most, p=0.4, least=least, student_usd=Decimal(student), teacher_usd=dollar)

    assert count(0.7, 2, "0.24") == 2
    assert count(0.7, 2, "0.26") == 0
    assert count(0.7, 1, "0.01") == 0
    assert count(0.8, 2, "0") == 0
    assert worth_drawing(None, 4, p=0.4, least=0.7, student_usd=Decimal(0), teacher_usd=dollar) == 0
