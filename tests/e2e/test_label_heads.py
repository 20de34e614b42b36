"""From a log to label heads that serve: no language model, no engine, one round."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from distiller.bundles import manifests
from distiller.rounds.round import run_round
from router.contracts.bundles import read_active
from router.contracts.decision import Deferral, Reason, Tier
from router.policy.policy import Policy, load_policy
from router.reports.explanation import explain
from router.settings import Settings
from router.store.access import open_readonly
from tests.distiller.tickets import traffic, write
from tests.fakes import World, policy_of, until, world

HEAD = {
    "name": "tickets",
    "student": {"engine": "head"},
    "objective": {"parity": {"at_least": 0.9, "confidence": 0.9}},
    "distil": {"min_new_records": 300},
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("heads")
    with world(folder, **HEAD) as running:
        policy = Policy.model_validate(policy_of(running.student, running.teacher, **HEAD) | {"teacher": TEACHER})
        settings = Settings(home=running.home, cache=folder / "cache")
        write(settings, policy, traffic(800, seed=1))
        report = run_round(policy, settings, encoders=lambda *_: None)
        assert report.promoted, report.reasons
        assert report.acceptable_rate is not None and report.acceptable_rate > 0.95
        assert report.share > 0.8
        running.teacher.always(text="from the teacher")
        until(lambda: ask(running, "kaban login loder").headers["x-locum-tier"] == "student")
        yield running


TEACHER = {
    "model": "recorded", "training_rights": "allowed", "usd_per_million": {"input": 1, "output": 10},
}  # fmt: skip


def ask(running: World, said: str, **more: Any) -> httpx.Response:
    body = {"model": "tickets", "messages": [{"role": "user", "content": said}], **more}
    return httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=30)


def test_it_answers_in_the_teacher_s_words_and_no_student_server_is_asked(served: World) -> None:
    answer = ask(served, "kaban login loder zisam")
    said = answer.json()
    assert said["choices"][0]["message"]["content"] == "access"
    assert said["choices"][0].get("logprobs") is None
    assert said["usage"]["completion_tokens"] == 2
    assert said["model"].startswith("label-head@")
    record = served.record(answer.headers["x-locum-request-id"])
    assert (record.tier, record.answers[0].cost_usd, record.reason) == (Tier.STUDENT, 0, Reason.SCORE)
    assert record.acceptance is not None and record.answers[0].signals is not None
    assert not served.student.seen


def test_it_streams(served: World) -> None:
    answer = ask(served, "kaban refund loder zisam", stream=True)
    assert answer.headers["x-locum-tier"] == "student"
    assert '"content":"billing"' in answer.text and answer.text.rstrip().endswith("data: [DONE]")


@pytest.mark.parametrize(
    "more",
    [
        {"logprobs": True}, {"n": 2, "temperature": 1}, {"stop": "ces"}, {"max_tokens": 1},
        {"response_format": {"type": "json_object"}}, {"metadata": {"task": "another"}},
        {"logit_bias": {"5": 1}},
    ],
)  # fmt: skip
def test_what_it_cannot_do_as_asked_the_teacher_does(served: World, more: dict[str, Any]) -> None:
    answer = ask(served, "kaban login loder zisam", **more)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-locum-tier"] == "teacher"


def test_a_kind_that_no_head_is_for_is_the_teacher_s(served: World) -> None:
    body = {"messages": [{"role": "system", "content": "Tell a story."}, {"role": "user", "content": "login"}]}
    answer = httpx.post(f"{served.url}/v1/chat/completions", json={"model": "tickets", **body}, timeout=30)
    assert answer.headers["x-locum-tier"] == "teacher"
    assert answer.json()["choices"][0]["message"]["content"] == "from the teacher"
    record = served.record(answer.headers["x-locum-request-id"])
    assert record.deferral in (None, Deferral.CONFIDENCE)


def test_forced_to_a_head_that_has_no_answer_is_told_so_by_the_teacher_s_answer(served: World) -> None:
    body = {
        "model": "locum/student",
        "messages": [{"role": "system", "content": "Tell."}, {"role": "user", "content": "x"}],
    }
    answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=30)
    assert answer.status_code == 200
    assert answer.headers["x-locum-tier"] == "teacher"


def test_the_bundle_has_heads_and_no_weights_of_a_language_model(served: World) -> None:
    bundles = Settings(home=served.home).bundles("tickets")
    (manifest,) = manifests(bundles)
    assert read_active(bundles).bundle == manifest.bundle_id
    assert (manifest.student.form, manifest.student.gguf, manifest.student.int8) == ("f32", None, None)
    assert sorted(p.name for p in (bundles / manifest.bundle_id / "student").iterdir()) == [
        "heads.json",
        "heads.safetensors",
    ]
    (kind,) = manifest.evaluation["train"]["kinds"]
    assert (kind["distinct"], kind["why"]) == (3, "")


def test_explaining_one_tells_the_score_that_it_was_given(served: World, tmp_path: Path) -> None:
    name = ask(served, "kaban login loder zisam").headers["x-locum-request-id"]
    served.record(name)
    settings = Settings(home=served.home, cache=tmp_path)
    log = open_readonly(settings)
    told = explain(name, log, settings, [load_policy(served.policy_file)])
    log.close()
    assert told.scoring is not None and told.scoring.same and told.scoring.parts is None
    assert "login" in {effect.word for effect in told.scoring.effects}
