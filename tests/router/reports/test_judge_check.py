"""`locum judge check` and `locum judge sample` as a user types them, on files of verdicts and a real log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from router.cli import app
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record
from router.errors import LocumError
from router.judges.measure import JudgeAgreement, Rate
from router.policy.policy import load_policy
from router.settings import Settings
from router.store.access import open_store
from tests.fakes import FakeUpstream, Script, served

Judge = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "default",
                "student": {"model": "s", "engine": "embedded", "usd_per_million": {"input": 0, "output": 0}},
                "teacher": {"model": "t"},
                "objective": {"parity": {}},
                "judge": {"name": "normalised", "tasks": {"sum": "numeric"}},
            }
        )
    )
    return tmp_path


@pytest.fixture
def judge(home: Path) -> Judge:
    def run(command: str, *arguments: str) -> Result:
        env = {"LOCUM_HOME": str(home / "home"), "LOCUM_CACHE": str(home / "cache"), "COLUMNS": "200"}
        return CliRunner().invoke(app, ["judge", command, "-p", str(home / "policy.yaml"), *arguments], env=env)

    return run


def file_of(home: Path, *lines: Any) -> str:
    path = home / "verdicts.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(path)


def pair(verdict: Any, student: Any, teacher: Any, **more: Any) -> dict[str, Any]:
    return {"prompt": "say it", "student": student, "teacher": teacher, "verdict": verdict} | more


def test_agreement_is_what_it_is_by_hand() -> None:
    counts = [((True, True), 40), ((False, True), 5), ((True, False), 10), ((False, False), 45), ((True, None), 3)]
    found = JudgeAgreement.of(both for both, n in counts for _ in range(n))
    assert (found.n, found.silent) == (100, 3)
    assert (found.agreement.value, found.precision.value, found.recall.value) == (0.85, 40 / 45, 0.8)
    assert found.false_acceptance == Rate.exact(5, 50)
    assert found.kappa == pytest.approx(0.7)
    assert (found.recall.low, found.recall.high) == (pytest.approx(0.66282, abs=1e-5), pytest.approx(0.89970, abs=1e-5))
    assert (found.agreement.low, found.agreement.high) == (
        pytest.approx(0.76716, abs=1e-5),
        pytest.approx(0.90694, abs=1e-5),
    )
    nothing = JudgeAgreement.of([(True, True)])
    assert (nothing.kappa, nothing.precision.low) == (None, pytest.approx(0.025))
    assert JudgeAgreement().kappa is None
    assert (JudgeAgreement().recall.value, JudgeAgreement().recall.low, JudgeAgreement().recall.high) == (None, 0, 1)


def test_the_policys_judges_are_measured_and_disagreements_listed(home: Path, judge: Judge) -> None:
    file = file_of(
        home,
        pair(True, "Yes", "yes"),
        pair("unacceptable", "no", "yes"),
        pair("acceptable", "It is four", "4", task="chat"),
        "",
        pair(False, "so 4", "4.0", task="sum", note="wrong unit"),
        pair(None, "a", "b"),
        pair(True, {"role": "assistant", "content": "a"}, "a", prompt=None, request={"messages": []}),
    )
    found = judge("check", "--verdicts", file)
    assert found.exit_code == 0, found.output
    out = found.output
    assert "normalised, sum: numeric against people on 5 pairs, 1 lines not judged by people left out" in out
    assert "60.0%" in out and "3/5" in out
    assert "line 3: people acceptable, judge not acceptable" in out
    assert "student: It is four" in out
    assert "line 5: people not acceptable, judge acceptable" in out
    assert "line 1:" not in out
    assert "By task" in out


def test_another_judge_may_be_measured_on_the_same_file(home: Path, judge: Judge) -> None:
    file = file_of(home, pair(True, "b a", "a"), pair(True, "Yes", "yes"))
    assert "0/2" in judge("check", "--verdicts", file, "--judge", "exact").output
    labels = judge("check", "--verdicts", file, "--judge", "{name: labels, labels: [a, 'yes']}")
    assert "2/2" in labels.output
    assert "Cohen's kappa" in labels.output


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (['{"verdict": true'], "line 1: no JSON"),
        ([pair(True, "a", "a"), pair("good", "a", "a")], "line 2: verdict must be true, false"),
        ([{"verdict": True, "student": "a", "prompt": "p"}], "line 1: teacher: Field required"),
        ([pair(True, "a", "a", request={})], "line 1: give exactly one of 'request' and 'prompt'"),
        ([pair(True, "a", "a", prompt=None)], "give exactly one of"),
        (["", "", "[]"], "line 3: "),
        (["x"] * 7, "line 5: no JSON; and 2 more"),
        ([pair(None, "a", "a")], "holds no human verdict"),
    ],
)
def test_a_wrong_line_is_told_by_its_number(home: Path, judge: Judge, lines: list[Any], why: str) -> None:
    found = judge("check", "--verdicts", file_of(home, *lines))
    assert isinstance(found.exception, LocumError)
    assert why in str(found.exception)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--judge", "kind"), "--judge: .*'exact'"),
        (("--judge", "{name: ["), "not valid YAML"),
        (("--judge", "{name: callable, entry_point: gone}"), "no judge 'gone'"),
    ],
)
def test_a_wrong_judge_is_told(home: Path, judge: Judge, arguments: tuple[str, ...], why: str) -> None:
    found = judge("check", "--verdicts", file_of(home, pair(True, "a", "a")), *arguments)
    with pytest.raises(LocumError, match=why):
        raise found.exception or AssertionError(found.output)


def test_a_file_that_is_not_there_is_told(home: Path, judge: Judge) -> None:
    found = judge("check", "--verdicts", str(home / "gone.jsonl"))
    assert "cannot read" in str(found.exception)


@pytest.fixture
def model() -> Iterator[FakeUpstream]:
    upstream = FakeUpstream("judge-1")
    with served(upstream) as url:
        upstream.url = url
        yield upstream


def by_model(model: FakeUpstream) -> str:
    price = {"input": 1, "output": 3}
    return json.dumps({"name": "llm", "model": "judge-1", "url": f"{model.url}/v1", "usd_per_million": price})


def test_a_model_is_asked_in_both_orders_and_its_cost_and_steadiness_are_told(
    home: Path, judge: Judge, model: FakeUpstream
) -> None:
    model.always(text="VERDICT: A")
    file = file_of(home, pair(False, "x", "y"), pair(False, "z", "y"))
    found = judge("check", "--verdicts", file, "--judge", by_model(model))
    assert "same in both orders: 0 of 2; cost 0.0005 USD" in found.output
    assert "2/2" in found.output
    assert len(model.seen) == 4


def test_a_model_that_fails_on_some_pairs_is_measured_on_the_rest(
    home: Path, judge: Judge, model: FakeUpstream
) -> None:
    model.answer = lambda body: Script(status=400) if "zzz" in str(body) else Script(text="VERDICT: TIE")
    file = file_of(home, pair(True, "x", "y"), pair(False, "zzz", "y"))
    found = judge("check", "--verdicts", file, "--judge", by_model(model))
    assert "failed on 1: " in found.output
    assert "line 2: people not acceptable, judge no verdict" in found.output
    model.always(status=400)
    assert "failed on every pair" in str(judge("check", "--verdicts", file, "--judge", by_model(model)).exception)


def record(n: int, *, audited: bool = True, text: bool = True, audit: bool = True) -> Record:
    def answer(tier: Tier, kind: AnswerKind) -> Answer:
        message = {"role": "assistant", "content": f"{tier} {n}"} if text else None
        return Answer(tier=tier, kind=kind, model="m", message=message, finish_reason="stop", cost_usd=Decimal(0))

    other = Audit(answer=answer(Tier.TEACHER, AnswerKind.AUDITED), acceptable=True, judge="normalised")
    return Record(
        request_id=f"r{n}",
        conversation_id=f"c{n}",
        created_at=1e9 + n,
        policy="default",
        policy_version="v",
        features_version="1",
        task="chat" if n % 2 else None,
        decision=Decision(tier=Tier.STUDENT, reason=Reason.SCORE, propensity=0.02, audited=audited),
        tier=Tier.STUDENT,
        reason=Reason.SCORE,
        request={"messages": [{"role": "user", "content": f"ask\u2028{n}"}]} if text else None,
        answers=[answer(Tier.STUDENT, AnswerKind.SERVED)],
        audit=other if audit else Audit(missed="budget"),
    )


def log(home: Path, *records: Record) -> None:
    store = open_store(Settings(home=home / "home"), [load_policy(home / "policy.yaml")])

    async def write() -> None:
        for each in records:
            store.append(each)
        await store.flush()

    asyncio.run(write())
    store.close()


def test_a_sample_of_audited_pairs_can_be_judged_by_people_and_checked(home: Path, judge: Judge) -> None:
    log(home, *map(record, range(30)), record(30, audited=False), record(31, text=False), record(32, audit=False))
    out = home / "sample.jsonl"
    found = judge("sample", "--out", str(out), "--count", "8")
    assert "8 pairs" in found.output
    lines = [json.loads(line) for line in out.read_text().split("\n") if line]
    numbers = [int(line["request_id"][1:]) for line in lines]
    assert len(set(numbers)) == 8 and numbers == sorted(numbers) and max(numbers) < 30
    assert lines[0]["verdict"] is None
    assert (lines[0]["student"], lines[0]["teacher"]) == (f"student {numbers[0]}", f"teacher {numbers[0]}")
    assert "acceptable" not in out.read_text()
    out.write_text(out.read_text().replace('"verdict": null', '"verdict": false'))
    assert "8/8" in judge("check", "--verdicts", str(out)).output


def test_a_sample_never_overwrites_peoples_work_and_says_where_there_is_none(home: Path, judge: Judge) -> None:
    assert "no audited pair" in str(judge("sample", "--out", str(home / "a.jsonl")).exception)
    log(home, record(1))
    mine = home / "mine.jsonl"
    mine.write_text("work")
    assert "is there already" in str(judge("sample", "--out", str(mine)).exception)
    assert mine.read_text() == "work"


@pytest.mark.parametrize(("command", "words"), [("check", "kappa"), ("sample", "at random")])
def test_help_says_what_it_does(command: str, words: str) -> None:
    assert words in CliRunner().invoke(app, ["judge", command, "--help"], env={"COLUMNS": "200"}).output
