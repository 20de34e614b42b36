"""An evaluation's figures, hand-checked on few questions, and its page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distiller.data.rows import DatasetRow
from distiller.evaluation.answers import StudentAnswer, StudentQuestion
from distiller.evaluation.grading import question
from distiller.evaluation.page import page
from distiller.evaluation.perturbation import perturbed
from distiller.evaluation.report import report, write
from distiller.evaluation.slices import with_rarity
from distiller.evaluation.study import EvaluatedStudent, Examination, curve, study
from router.contracts.prices import Price
from router.contracts.records import Signals
from router.policy.policy import Policy
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.signals import summarise

STUDENT = EvaluatedStudent("bundle-2", "small", "int8", "embedded", parent="bundle-1")
PRICE = Price(input=Decimal(1), output=Decimal(2))


def asked(n: int, task: str = "intent") -> StudentQuestion:
    messages = [{"role": "user", "content": f"please tell what team number {n % 9} does for customers of {task}"}]
    return question(DatasetRow(f"r{n}", f"c{n}", float(n), messages, "billing", "t", "allowed", task, teacher_tokens=3))


def answer(name: str, p: float = 0.9, seconds: float = 0.5, **more: Any) -> StudentAnswer:
    signals: Signals = summarise([float(np.log(p))] * 3, True, "billing")
    values = {"message": {"content": "billing"}, "output_tokens": 2, "seconds": seconds, "signals": signals}
    return StudentAnswer(request_id=name, **(values | more))


def of(questions: list[StudentQuestion], grades: dict[str, bool], **more: Any) -> Examination:
    answers = {q.request_id: answer(q.request_id) for q in questions}
    return Examination(questions, answers, grades, **more)


def told(given: Examination) -> dict[str, Any]:
    return study(STUDENT, given, student_price=PRICE, teacher_price=PRICE, in_flight=4)


def test_retention_is_told_of_all_and_of_each_slice_that_is_large_enough() -> None:
    questions = [asked(i, "intent" if i < 30 else "odd") for i in range(34)]
    found = told(of(questions, {q.request_id: i % 4 > 0 for i, q in enumerate(questions)}))["retention"]
    rates = {r["name"]: (r["n"], r["acceptable"][0]) for r in found}
    assert rates["overall"] == (34, pytest.approx(25 / 34, abs=1e-6))
    assert rates["task=intent"] == (30, pytest.approx(22 / 30, abs=1e-6))
    assert "task=odd" not in rates
    assert all(r["acceptable"][1] <= r["acceptable"][0] <= r["acceptable"][2] for r in found)


def test_where_both_are_known_the_ratio_of_being_right_stands_beside_it() -> None:
    questions = [replace(asked(i), teacher_right=i % 10 > 0) for i in range(20)]
    answers = {q.request_id: answer(q.request_id, right=i % 2 == 0) for i, q in enumerate(questions)}
    first = told(Examination(questions, answers, {q.request_id: True for q in questions}))["retention"][0]
    assert (first["student_right"][0], first["teacher_right"][0]) == (0.5, 0.9)
    assert first["right_ratio"][0] == pytest.approx(10 / 18, abs=1e-6)


def test_forgetting_counts_what_the_parent_could_and_names_it() -> None:
    questions = [asked(i) for i in range(20)]
    before = {f"r{i}": i < 15 for i in range(20)}
    after = {f"r{i}": 5 <= i < 17 for i in range(20)}
    found = told(of(questions, after, parent_grades=before))["forgetting"]
    [overall] = found["slices"]
    assert (overall["forgotten"], overall["gained"], overall["before"], overall["after"]) == (5, 2, 0.75, 0.6)
    assert overall["difference"][0] == pytest.approx(-0.15)
    assert found["forgotten"] == ["r0", "r1", "r2", "r3", "r4"]
    assert told(of(questions, after))["forgetting"] is None


def test_a_changed_prompt_is_held_against_the_same_originals() -> None:
    questions = [asked(i) for i in range(60)]
    changed = perturbed(questions, 60)
    grades = {q.request_id: True for q in questions} | {
        q.request_id: "injection" not in q.slices[0] for _, q in changed
    }
    given = of([*questions, *(q for _, q in changed)], grades)
    found = told(replace(given, questions=questions, perturbed=changed))["adversarial"]
    by = {r["name"]: r for r in found}
    assert by["adversarial=injection"]["difference"][0] == -1.0
    assert by["adversarial=typos"]["difference"][0] == 0.0
    assert by["overall"]["n"] == len(changed)


def test_what_the_scorer_learnt_from_does_not_calibrate_it() -> None:
    questions = [asked(i, "intent" if i % 2 else "odd") for i in range(80)]
    grades = {q.request_id: q.task == "intent" for q in questions}
    scorer = Scorer.fit([Example(q.features, None, grades[q.request_id]) for q in questions], None)
    learnt = frozenset(f"r{i}" for i in range(40))
    found = told(of(questions, grades, scorer=scorer, learnt=learnt))
    assert [(c["name"], c["n"]) for c in found["calibration"]] == [("score", 40)]
    assert sum(b["n"] for b in found["calibration"][0]["bins"]) == 40
    assert found["deferral"][0]["name"] == "score" and found["deferral"][0]["auroc"][0] == 1.0


def test_sureness_that_tells_good_answers_has_an_auroc_of_one_and_a_falling_curve() -> None:
    questions = [asked(i) for i in range(40)]
    grades = {q.request_id: i < 20 for i, q in enumerate(questions)}
    answers = {q.request_id: answer(q.request_id, 0.9 if i < 20 else 0.3) for i, q in enumerate(questions)}
    [first, *_] = told(Examination(questions, answers, grades))["deferral"]
    assert first["auroc"][0] == 1.0
    assert first["curve"] == [(0.5, 1.0), (1.0, 0.5)]


def test_a_curve_keeps_equal_scores_together() -> None:
    assert curve([3, 2, 2, 1], [True, False, True, False]) == [(0.25, 1.0), (0.75, 0.6667), (1.0, 0.5)]


def test_cost_is_tokens_times_price_and_latency_its_quantiles() -> None:
    questions = [asked(i) for i in range(10)]
    answers = {q.request_id: answer(q.request_id, seconds=float(i)) for i, q in enumerate(questions)}
    found = told(Examination(questions, answers, {q.request_id: True for q in questions}))["serving"]
    prompt = questions[0].features.input_tokens
    assert found["usd_per_request"] == pytest.approx((prompt * 1 + 2 * 2) / 1e6)
    assert found["teacher_usd_per_request"] == pytest.approx((prompt * 1 + 3 * 2) / 1e6)
    assert (found["seconds_p50"], found["seconds_p95"], found["in_flight"]) == (5.0, 9.0, 4)


def everything(n: int = 300) -> dict[str, Any]:
    """A report with all its parts, of a student that is good at one task and forgot another."""
    rng = np.random.default_rng(0)
    tasks = ("intent", "extract", "summary", "<legal & tax>")
    questions = [asked(i, tasks[i % 4]) for i in range(n)]
    p = {q.request_id: float(rng.uniform(0.3, 0.99)) for q in questions}
    grades = {name: bool(rng.random() < value) for name, value in p.items()}
    examples = [Example(q.features, answer("x", p[q.request_id]).signals, grades[q.request_id]) for q in questions]
    scorer = Scorer.fit(examples[: n // 2], None)
    questions = with_rarity(questions, scorer)
    changed = perturbed(questions, n // 2)
    grades |= {q.request_id: grades[old] and bool(rng.random() < 0.8) for old, q in changed}
    answers = {
        q.request_id: answer(q.request_id, p.get(q.request_id, 0.9)) for q in [*questions, *(q for _, q in changed)]
    }
    before = {q.request_id: bool(rng.random() < 0.55) for q in questions}
    learnt = frozenset(q.request_id for q in questions[: n // 2])
    policy = Policy.model_validate(
        {
            "name": "p",
            "student": {"model": "s", "engine": "embedded", "usd_per_million": {"input": 0.02, "output": 0.06}},
            "teacher": {"model": "t", "usd_per_million": {"input": 1, "output": 8}},
            "objective": {"parity": {}},
        }
    )
    test = {"form": "", "name": "overall", "n": n, "incumbent": 0.55, "candidate": 0.64, "lower_bound": 0.02}
    gate = {"promoted": False, "reasons": ["slice a: worse"], "slices": [test | {"margin": 0.02, "passed": False}]}
    given = Examination(questions, answers, grades, before, changed, scorer, learnt)
    training = {"rows": 1200, "last_loss": 0.1234567, "seconds": 84.2}
    return report(STUDENT, given, policy, source="the log", in_flight=16, gate=gate, training=training)


class Wellformed(HTMLParser):
    """Every tag that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        return

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_has_every_part_needs_nothing_else_and_escapes_what_it_shows() -> None:
    shown = page(everything())
    checker = Wellformed()
    checker.feed(shown)
    assert checker.open == []
    assert re.findall(r"<h2>([A-Z][a-z]+)", shown)[:4] == ["Gate", "Retention", "Forgetting", "Adversarial"]
    assert all(words in shown for words in ("Calibration", "Deferral", "Training", "bundle-2", "slice a: worse"))
    assert "task=&lt;legal &amp; tax&gt;" in shown and "<legal" not in shown
    assert not re.search(r"(src|href)=|url\(|@import|<script", shown)


def test_both_files_are_written_and_the_json_is_what_the_page_shows(tmp_path: Path) -> None:
    made = everything(120)
    plain, shown = write(made, tmp_path / "out")
    read = json.loads(plain.read_text())
    assert read["student"]["form"] == "int8" and read["retention"][0]["n"] == 120
    assert shown.read_text() == page(read) == page(made)


def test_a_report_of_little_leaves_out_what_it_cannot_tell() -> None:
    questions = [asked(i) for i in range(3)]
    found = told(of(questions, {q.request_id: True for q in questions}))
    assert (found["calibration"], found["deferral"], found["forgetting"], found["adversarial"]) == ([], [], None, [])
    shown = page({**found, "policy": "p", "source": "a file", "at": 0.0, "seed": 0, "gate": None, "training": None})
    assert "Forgetting" not in shown and "Retention" in shown


def test_no_judged_question_at_all_is_told_as_such() -> None:
    found = told(Examination([asked(1)], {}, {}))
    assert found["retention"][0]["acceptable"][0] is None
    assert "–" in page({**found, "policy": "p", "source": "a file", "at": 0.0, "seed": 0})
