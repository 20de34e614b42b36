"""A canary is kept or rolled back by its audits, beside the live student asked the same over a real wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from distiller.cli import app
from distiller.evaluation.gate import PairedOutcome, no_worse
from distiller.home import CanaryRunning
from distiller.rounds import trial as trials
from distiller.rounds.round import run_round
from distiller.rounds.trial import look, under_way
from router.contracts.bundles import activate, begin_canary, end_canary, read_active
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record
from router.contracts.rounds import canaries, history, training_costs
from router.policy.policy import Policy
from router.settings import Settings
from router.store.access import open_store
from tests.fakes import FakeUpstream, Script, policy_of, served
from tests.manifests import complete

RIGHT = "blue whale"


@dataclass
class Home:
    """A home with ``old`` live and ``new`` tried beside it; the live student answers by URL."""

    settings: Settings
    policy: Policy
    student: FakeUpstream
    file: Path

    @property
    def bundles(self) -> Path:
        return self.settings.bundles("default")

    def audited(self, right: Callable[[int], bool], n: int, bundle: str = "new", task: str | None = None) -> None:
        """``n`` audited requests of a bundle; every other one was served by its student, the rest by the teacher."""

        async def write() -> None:
            for i in range(n):
                student = answer(Tier.STUDENT, RIGHT if right(i) else "green", bundle)
                teacher = answer(Tier.TEACHER, RIGHT, None)
                served, other = (student, teacher) if i % 2 else (teacher, student)
                record = Record(
                    request_id=f"{bundle}-{task}-{i}",
                    conversation_id=f"c-{i}",
                    created_at=time.time(),
                    policy="default",
                    policy_version="1",
                    bundle=bundle,
                    features_version="1",
                    task=task,
                    decision=Decision(tier=served.tier, reason=Reason.SCORE, audited=True, propensity=0.2),
                    tier=served.tier,
                    reason=Reason.SCORE,
                    request={"model": "default", "messages": [{"role": "user", "content": f"what is big, {task} {i}"}]},
                    answers=[served],
                )
                store.append(record)
                store.amend(
                    record.request_id, audit=Audit(answer=other, acceptable=right(i), judge=self.policy.judge.label)
                )
            await store.flush()

        store = open_store(self.settings, [self.policy])
        asyncio.run(write())
        store.close()


def answer(tier: Tier, text: str, version: str | None) -> Answer:
    said = {"role": "assistant", "content": text}
    drawn_at = 0.0 if tier is Tier.STUDENT else None
    made = Answer(tier=tier, kind=AnswerKind.SERVED, model="m", message=said, finish_reason="stop")
    return replace(made, student_version=version, temperature=drawn_at)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    student = FakeUpstream("tiny")
    monkeypatch.setenv("LOCUM_HOME", str(tmp_path / "home"))
    with served(student) as url:
        student.url = url
        student.always(text=RIGHT)
        values = policy_of(student, student, judge="exact", distil={"canary": {"min_audits": 60, "max_hours": 5}})
        file = tmp_path / "policy.yaml"
        file.write_text(yaml.safe_dump(values))
        made = Home(Settings.from_env(), Policy.model_validate(values), student, file)
        for name in ("old", "new"):
            complete(made.bundles, name)
        activate(made.bundles, "old")
        begin_canary(made.bundles, "new")
        yield made


def test_it_goes_on_while_there_are_too_few_audits(home: Home) -> None:
    home.audited(lambda i: True, 59)
    home.audited(lambda i: True, 30, bundle="old")  # what is live has audits of its own
    looked = look(home.policy, home.settings)
    assert looked is not None and looked.under_way
    assert "59 audits" in looked.told and "of 60, or 5 h" in looked.told
    assert not home.student.seen, "the live student is not asked before it matters"
    assert read_active(home.bundles).canary is not None


def test_one_as_good_as_the_live_student_is_kept_and_the_history_says_by_what(home: Home) -> None:
    home.audited(lambda i: i % 10 != 0, 60)
    home.student.answer = lambda body: Script(text="green" if " 5" in body["messages"][0]["content"] else RIGHT)
    looked = look(home.policy, home.settings)
    assert looked is not None and not looked.under_way and "kept, so that it is live" in looked.told
    active = read_active(home.bundles)
    assert (active.bundle, active.previous, active.canary) == ("new", "old", None)
    assert len(home.student.seen) == 60, "the live student was asked the same prompts"
    (told,) = canaries(home.settings.work("default"))
    assert told["kept"] and told["audits"] == 60 and told["live"] == "old"
    assert told["gate"]["slices"][0]["n"] == 60
    assert "judged by 60 audits" in told["reasons"]
    assert history(home.settings.work("default")) == [], "it is no round"
    assert look(home.policy, home.settings) is None, "it is told once"


def test_a_worse_one_is_rolled_back_with_the_figures(home: Home) -> None:
    home.audited(lambda i: i % 4 != 0, 60)
    looked = look(home.policy, home.settings)
    assert looked is not None and "rolled back" in looked.told
    active = read_active(home.bundles)
    assert (active.bundle, active.canary) == ("old", None)
    assert active.ended is not None and not active.ended.kept
    assert any("overall: 1.00 -> 0.75, n=60" in reason for reason in active.ended.reasons)


def test_one_that_is_worse_on_a_single_task_is_rolled_back_for_that(home: Home) -> None:
    home.audited(lambda i: True, 200, task="large")
    home.audited(lambda i: i % 3 != 0, 40, task="small")
    look(home.policy, home.settings)
    ended = read_active(home.bundles).ended
    assert ended is not None and not ended.kept
    assert any(reason.startswith("slice task=small: 1.00 -> 0.65") for reason in ended.reasons)


def test_when_its_time_is_up_it_is_judged_by_what_there_is(home: Home) -> None:
    home.audited(lambda i: True, 7)
    began = read_active(home.bundles).canary
    assert began is not None
    early, late = (under_way(home.policy, home.settings, now=began.began_at + 3600 * h) for h in (4.9, 5.1))
    assert early is not None and early.due is None
    assert late is not None and late.due == "7 audits in 5 h"


def test_without_any_audit_the_gates_word_holds(home: Home) -> None:
    off = home.policy.model_copy(update={"distil": home.policy.distil.model_copy(update={"canary": None})})
    looked = look(off, home.settings)
    assert looked is not None and "the gate's word holds" in looked.told
    assert read_active(home.bundles).bundle == "new"


def test_one_that_the_proxy_threw_out_is_in_the_history_too(home: Home) -> None:
    end_canary(home.bundles, "new", kept=False, reasons=("its server failed",))
    looked = look(home.policy, home.settings)
    assert looked is not None and "its server failed" in looked.told and not looked.under_way
    (told,) = canaries(home.settings.work("default"))
    assert (told["kept"], told["reasons"], told["cost_usd"]) == (False, ["its server failed"], "0")
    assert list(training_costs(home.bundles, home.settings.work("default")))


def test_a_kill_before_the_pointer_moved_asks_nothing_twice(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.audited(lambda i: True, 60)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trials, "end_canary", killed)
        with pytest.raises(KeyboardInterrupt):
            look(home.policy, home.settings)
    assert read_active(home.bundles).canary is not None
    look(home.policy, home.settings)
    assert read_active(home.bundles).bundle == "new"
    assert len(home.student.seen) == 60
    assert not list(home.settings.work("default").glob("canary-*"))


def test_no_round_starts_beside_it_and_the_commands_say_why(home: Home) -> None:
    home.audited(lambda i: True, 3)
    with pytest.raises(CanaryRunning, match="the canary new is under way"):
        run_round(home.policy, home.settings)
    for command in (["watch", "--once"], ["run"], ["status"]):
        said = CliRunner().invoke(app, [*command, "--policy", str(home.file)])
        assert said.exit_code == 0, said.output
        assert "canary new: 3 audits" in said.output
    said = CliRunner().invoke(app, ["rollback", "--policy", str(home.file)])
    assert said.exit_code == 0, said.output
    active = read_active(home.bundles)
    assert (active.bundle, active.canary) == ("old", None)
    assert "rolled back" in CliRunner().invoke(app, ["status", "--policy", str(home.file)]).output


def test_few_rows_are_judged_at_the_margin_that_they_resolve() -> None:
    def rows(won: int, lost: int, n: int, **more: Any) -> list[PairedOutcome]:
        pairs = [(True, False)] * won + [(False, True)] * lost + [(True, True)] * (n - won - lost)
        return [PairedOutcome(str(i), a, b, **more) for i, (a, b) in enumerate(pairs)]

    assert no_worse(rows(6, 6, 100)).promoted, "equal, though 100 rows never prove a margin of 2%"
    assert no_worse(rows(4, 9, 100)).promoted, "5 more lost of 13 that differ is within chance"
    assert not no_worse(rows(2, 14, 100)).promoted
    assert not no_worse(rows(0, 8, 100)).promoted
    verdict = no_worse(rows(0, 0, 3))
    assert verdict.promoted and verdict.slices[0].n == 3
