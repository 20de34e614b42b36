"""Whether a policy can ever learn, in words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from router.policy.learning import learning
from router.policy.policy import Policy

LABELS = {"model": "qwen3-32b", "url": "http://vllm:8000/v1", "training_rights": "allowed"}


def policy(**parts: Any) -> Policy:
    values: dict[str, Any] = {
        "name": "p",
        "student": {"model": "s", "engine": "embedded", "usd_per_million": {"input": 0, "output": 0}},
        "teacher": {"model": "openai/gpt-5", "training_rights": "forbidden"},
        "objective": {"parity": {}},
    }
    teacher = {**values["teacher"], **parts.pop("teacher", {})}
    return Policy.model_validate(values | {"teacher": teacher} | parts)


def test_the_usual_terms_never_learn_and_it_is_said_what_to_change() -> None:
    verdict = learning(policy())
    assert not verdict.can
    assert verdict.words == (
        "never learns, since openai/gpt-5's own may not be trained on (training_rights: forbidden) and no label "
        "teacher is named: name a label teacher whose answers may be (distil.labels_from: {model: …, url: …, "
        "training_rights: allowed}), or, if you have the right, say so "
        "(teacher.i_have_the_right_to_train_on: [openai/gpt-5])"
    )


@pytest.mark.parametrize("teacher", [{"training_rights": "allowed"}, {"i_have_the_right_to_train_on": ["gpt-5"]}])
def test_a_teacher_that_may_be_learnt_from_is(teacher: dict[str, Any]) -> None:
    verdict = learning(policy(teacher=teacher))
    assert verdict.can and verdict.words.startswith("learns from openai/gpt-5's own answers")


def test_a_label_teacher_lets_it_learn() -> None:
    verdict = learning(policy(distil={"labels_from": LABELS}))
    assert verdict.can and "what qwen3-32b answers" in verdict.words and "only measure" in verdict.words


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"log": {"text": False}, "teacher": {"training_rights": "allowed"}}, "log.text: true"),
        ({"audit": {"rate": 0, "warmup_rate": 0}, "teacher": {"training_rights": "allowed"}}, "audit.rate"),
        ({"distil": {"labels_from": LABELS | {"usd_per_round": 0}}}, "usd_per_round: 0 pays for no answer"),
    ],
)
def test_what_else_keeps_it_from_learning_is_said(parts: dict[str, Any], why: str) -> None:
    verdict = learning(policy(**parts))
    assert not verdict.can and why in verdict.words


def test_open_weights_of_ones_own_need_no_budget() -> None:
    free = {"usd_per_round": 0, "usd_per_million": {"input": 0, "output": 0}}
    assert learning(policy(distil={"labels_from": LABELS | free})).can


def test_a_fallback_that_may_be_learnt_from_is_told_of() -> None:
    teacher = {"fallbacks": ["groq/openai/gpt-oss-120b"], "i_have_the_right_to_train_on": ["groq/openai/gpt-oss-120b"]}
    verdict = learning(policy(teacher=teacher))
    assert verdict.can and "only from what the fallback groq/openai/gpt-oss-120b answers" in verdict.words


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (LABELS | {"training_rights": "forbidden"}, "may not be trained on"),
        (LABELS | {"training_rights": "unknown"}, "may not be trained on"),
        ({"model": "openai/gpt-5", "training_rights": "allowed"}, "names the served teacher"),
        ({"model": "gpt-5-2025-08-07", "training_rights": "allowed"}, "names the served teacher"),
        ({"model": "qwen3-32b", "url": "http://me:secret@vllm:8000/v1", "training_rights": "allowed"}, "no user or"),
    ],
)
def test_a_label_teacher_that_may_not_be_learnt_from_is_none(labels: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        policy(distil={"labels_from": labels})


def test_answered_again_needs_texts() -> None:
    with pytest.raises(ValidationError, match=r"log\.text: true"):
        policy(distil={"labels_from": LABELS}, log={"text": False})
