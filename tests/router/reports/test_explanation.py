"""`locum explain` tells why a request went where it went, from the record and the bundle that was live for it."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import yaml
from rich.console import Console

from router.contracts.bundles import Evidence, Thresholds, activate
from router.contracts.decision import Decision, Deferral, Fallback, Reason, Tier
from router.contracts.records import Record
from router.errors import StoreError
from router.policy.policy import Policy, load_policy
from router.reports.explanation import GONE, Explanation, explain
from router.reports.explanation_page import page, show
from router.routing.steps import afterwards, walk
from router.scoring.linear import sigmoid
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.encoder import Encoder, load_encoder
from router.scoring.text.features import FEATURES_VERSION, extract
from router.settings import Settings
from router.store.access import open_readonly, open_store
from tests.fakes import Script, World, until, world
from tests.manifests import complete

MakeRecord = Callable[..., Record]


def body(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


def publish(settings: Settings, encoder: Encoder | None = None) -> None:
    """A bundle that keeps what is about balances and sends proofs to the teacher. What its scorer learned from has
    its own text as its id."""
    folder = settings.bundles("default")
    texts = [(f"what is my {word} {n}", True) for n in range(40) for word in ("balance", "fee")]
    texts += [(f"prove the theorem about {n}", False) for n in range(80)]
    scorer = Scorer.fit([Example(extract(body(text)), None, ok, request_id=text) for text, ok in texts], encoder)
    scorer.save(folder / "b1" / "scorer")
    evidence = Evidence(
        target=0.9, confidence=0.95, examples=160, served=80, unacceptable=1, risk_bound=0.03, method="exact"
    )
    thresholds = Thresholds(route=0.5, accept=0.5, evidence=evidence)
    complete(folder, "b1", created_at=time.time(), thresholds=thresholds)
    activate(folder, "b1")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("explained")
    publish(Settings(home=folder / "home"))
    audit = {"rate": 1.0, "explore": 0, "usd_per_day": 100}
    with world(folder, objective={"parity": {"at_least": 0.8}}, audit=audit, judge="exact") as found:
        found.student.answer = lambda asked: Script(text="" if "fee 33" in str(asked["messages"]) else "right")
        found.teacher.always(text="right", logprob=None)
        until(lambda: "b1" in httpx.get(f"{found.url}/health/ready").text)
        yield found


def ask(running: World, text: str, **headers: str) -> str:
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=body(text, user="u-1"), headers=headers)
    assert answer.status_code == 200
    request_id = answer.headers["x-locum-request-id"]
    until(lambda: running.record(request_id).audit or not running.record(request_id).is_traffic)
    return str(request_id)


def explained(running: World, request_id: str) -> Explanation:
    settings = Settings(home=running.home)
    with closing(open_readonly(settings)) as records:
        return explain(request_id, records, settings, [load_policy(running.policy_file)])


def text_of(found: Explanation) -> str:
    out = StringIO()
    Console(file=out, width=100, color_system=None).print(page(found))
    assert max(map(len, out.getvalue().splitlines())) <= 100
    return " ".join(out.getvalue().split())


def test_a_score_is_computed_anew_and_taken_apart(running: World) -> None:
    ask(running, "what is my balance 98")
    found = explained(running, ask(running, "what is my balance 99"))
    scoring, parts = found.scoring, found.scoring.parts
    assert scoring.same and scoring.recomputed == scoring.recorded and scoring.why_not is None
    assert parts is not None and sigmoid(parts.total) * parts.discount == pytest.approx(scoring.recorded, abs=1e-6)
    assert scoring.effects[0].score_without != scoring.recorded
    assert {e.word for e in scoring.effects} == {"what", "is", "my", "balance", "99"}
    assert len(found.missing) == 1 and "requests like it" in found.missing[0]
    text = text_of(found)
    assert "so the student" in text and "and the same when computed anew" in text
    assert "risk at most 3.0% at 95% confidence (exact)" in text
    assert "is as good as the teacher's, says exact" in text and "the student answered (tiny)" in text


def test_what_the_teacher_got_is_told_with_the_step_that_sent_it_there(running: World) -> None:
    hard = text_of(explained(running, ask(running, "prove the theorem about primes")))
    assert "< threshold 0.5000, so the teacher" in hard and "the teacher answered (big)" in hard
    forced = text_of(explained(running, ask(running, "what is my fee 1", **{"x-locum-tier": "teacher"})))
    assert "● override the client asked for the teacher" in forced and "score not asked any more" in forced
    empty = text_of(explained(running, ask(running, "what is my fee 33")))
    assert "the student's answer was not let out: it was empty; the teacher answered (big)" in empty
    assert "let out no: empty" in empty


def test_tools_get_all_of_it_as_json(running: World, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    request_id = ask(running, "what is my balance 7")
    show(request_id, [running.policy_file, Path("gone.yaml")], as_json=True, settings=Settings(home=running.home))
    found = orjson.loads(capfdbinary.readouterr().out)
    assert found["request_id"] == request_id and found["score"]["same"] is True
    assert [s["name"] for s in found["walk"] if s["spoke"]] == ["score"]
    assert found["thresholds"]["route"] == 0.5 and found["record"]["audit"]["acceptable"] is True
    assert Decimal(found["saved_usd"]) == Decimal(found["record"]["counterfactual_usd"]) - Decimal(found["cost_usd"])


def test_an_unknown_request_is_a_clear_error(running: World) -> None:
    with pytest.raises(StoreError, match=r"no request 'nope' in .*x-locum-request-id"):
        explained(running, "nope")


# ---- from records alone ----


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def kept(settings: Settings, policy: Policy, *records: Record) -> None:
    with closing(open_store(settings, [policy])) as store:
        for record in records:
            store.append(record)


def policy_from(folder: Path, **changes: Any) -> Policy:
    values: dict[str, Any] = {
        "name": "default",
        "student": {"model": "s", "url": "http://s/v1", "usd_per_million": {"input": 0, "output": 0}},
        "teacher": {"model": "openai/gpt-5", "usd_per_million": {"input": 1, "output": 1}},
        "objective": {"parity": {}},
    }
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return load_policy(path)


def told(settings: Settings, policy: Policy, request_id: str = "r-1") -> Explanation:
    with closing(open_readonly(settings)) as records:
        return explain(request_id, records, settings, [policy])


def test_without_kept_text_it_says_what_cannot_be_shown(
    settings: Settings, tmp_path: Path, make_record: MakeRecord
) -> None:
    policy = policy_from(tmp_path, log={"text": False})
    publish(settings)
    kept(settings, policy, make_record(bundle="b1", features_version=FEATURES_VERSION, policy_version=policy.version))
    found = told(settings, policy)
    text = text_of(found)
    assert found.read is None and found.scoring.parts is None and not found.neighbours
    assert "score 0.9000 >= threshold 0.7000, so the student" in text
    assert "it cannot be taken apart: the policy keeps no text" in text
    assert "What cannot be shown" in text and "0.000500" in text


def test_redacted_text_is_told_from_what_was_scored(
    settings: Settings, tmp_path: Path, make_record: MakeRecord
) -> None:
    policy = policy_from(tmp_path)
    publish(settings)
    kept(settings, policy, make_record(bundle="b1", features_version=FEATURES_VERSION))
    found = told(settings, policy)
    assert found.scoring.recomputed is not None and not found.scoring.same
    assert "when computed anew: the kept text is redacted" in text_of(found)
    assert found.missing[0] == "the policy that decided: its file has changed since, or was not given (--policy)"


def test_the_judged_requests_that_the_scorer_asked_too_are_shown_with_their_verdicts(
    settings: Settings, tmp_path: Path, make_record: MakeRecord
) -> None:
    policy = policy_from(tmp_path)
    publish(settings, load_encoder(settings.cache))
    asked = body("what is my fee 12")
    kept(
        settings,
        policy,
        make_record(bundle="b1", features_version=FEATURES_VERSION, policy_version=policy.version, request=asked),
        make_record("what is my fee 12", request=asked),
    )
    found = told(settings, policy)
    first, *others = found.neighbours
    assert (first.request_id, first.similarity, first.acceptable) == ("what is my fee 12", pytest.approx(1), True)
    assert first.excerpt == "what is my fee 12" and {n.excerpt for n in others} == {GONE}
    assert len(others) == 4 and all("fee" in n.request_id for n in others)
    assert "Judged requests most like it" in text_of(found) and found.missing == ()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"bundle": "pruned"}, "the bundle pruned is gone"),
        ({"bundle": None}, "no bundle was live"),
        ({"bundle": "b1", "features_version": "0"}, "read by version 0 of the features"),
    ],
)
def test_a_score_that_cannot_be_computed_anew_says_why(
    settings: Settings, tmp_path: Path, make_record: MakeRecord, changes: dict[str, Any], why: str
) -> None:
    policy = policy_from(tmp_path)
    publish(settings)
    kept(settings, policy, make_record(**changes))
    found = told(settings, policy)
    assert found.scoring.recomputed is None and why in str(found.scoring.why_not)
    assert why in text_of(found) and found.read is not None


def test_a_damaged_scorer_is_told(settings: Settings, tmp_path: Path, make_record: MakeRecord) -> None:
    policy = policy_from(tmp_path)
    publish(settings)
    shutil.rmtree(settings.bundles("default") / "b1" / "scorer")
    kept(settings, policy, make_record(bundle="b1", features_version=FEATURES_VERSION))
    assert "cannot be read" in str(told(settings, policy).scoring.why_not)


@pytest.mark.parametrize(
    ("decision", "spoke", "why"),
    [
        (
            Decision(tier=Tier.TEACHER, reason=Reason.CAPABILITY, detail="images"),
            "capability",
            "unfit for this: images",
        ),
        (Decision(tier=Tier.TEACHER, reason=Reason.RULE, detail="rule 2: user"), "rule", "rule 2: user"),
        (Decision(tier=Tier.TEACHER, reason=Reason.AFFINITY, detail="escalated before"), "affinity", "escalated"),
        (Decision(tier=Tier.TEACHER, reason=Reason.EXPLORATION, detail="drawn with p=0.01"), "exploration", "drawn"),
        (Decision(tier=Tier.STUDENT, reason=Reason.BUDGET, detail="spent for now"), "budget", "spent"),
        (Decision(tier=Tier.STUDENT, reason=Reason.BUDGET, detail="no room (override)"), "budget", "no room"),
        (Decision(tier=Tier.TEACHER, reason=Reason.COLD_START), "cold_start", "no scorer is fitted"),
        (Decision(tier=Tier.TEACHER, reason=Reason.SCORE, score=0.5, threshold=2), "score", "never serves"),
        (
            Decision(tier=Tier.TEACHER, reason=Reason.SCORE, score=0.9, worth=0.3, threshold=0.4),
            "score",
            "worth 0.3000 < threshold 0.4000, so the teacher",
        ),
        (
            Decision(tier=Tier.TEACHER, reason=Reason.FALLBACK, detail="student not ready (rule)"),
            "rule",
            "student not ready",
        ),
    ],
)
def test_one_step_speaks_those_before_are_silent_and_those_after_not_asked(
    make_record: MakeRecord, tmp_path: Path, decision: Decision, spoke: str, why: str
) -> None:
    for policy in (None, policy_from(tmp_path)):
        steps = walk(make_record(decision=decision, reason=decision.reason), policy)
        (at,) = [i for i, step in enumerate(steps) if step.spoke]
        assert steps[at].name == spoke and why in steps[at].why
        assert all(s.spoke is False for s in steps[:at]) and all(s.spoke is None for s in steps[at + 1 :])


def test_what_came_after_the_decision_is_told_in_order(make_record: MakeRecord) -> None:
    ready = Decision(tier=Tier.STUDENT, reason=Reason.SCORE, score=0.9, threshold=0.7)
    waiting = Decision(tier=Tier.TEACHER, reason=Reason.FALLBACK, detail="student not ready (score)")
    deferred = make_record(tier=Tier.TEACHER, decision=ready, reason=Reason.DEFERRAL, deferral=Deferral.REFUSAL)
    broken = make_record(tier=None, decision=ready, reason=Reason.FALLBACK, fallback=Fallback.TIMEOUT, status=504)
    refused = make_record(tier=Tier.TEACHER, decision=ready, reason=Reason.CAPABILITY)
    unready = make_record(tier=Tier.TEACHER, decision=waiting, reason=Reason.FALLBACK, fallback=Fallback.UNREACHABLE)
    assert afterwards(deferred) == ["the student's answer was not let out: it refused", "the teacher answered (small)"]
    assert afterwards(broken) == ["a backend failed: it took too long", "nobody answered: status 504"]
    spent = make_record(tier=None, decision=ready, reason=Reason.BUDGET, fallback=Fallback.BUDGET, status=429)
    assert afterwards(spent)[0].startswith("the day's budget had no room")
    assert afterwards(spent)[1] == "nobody answered: status 429"
    assert afterwards(refused)[0].startswith("the student's own server refused")
    assert afterwards(unready)[0] == "student not ready (score): the teacher was asked instead"


def test_what_a_client_wrote_acts_on_no_terminal(running: World, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    acts = "\x1b]52;c;aGk=\x07 \x9b2J \u202eback [bold]loud[/]"
    asked = body(f"what is my {acts}", user=acts, metadata={"task": acts, "conversation_id": acts})
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=asked)
    request_id = answer.headers["x-locum-request-id"]
    until(lambda: running.record(request_id).audit)
    told = text_of(explained(running, request_id))
    assert "\\x1b]52;c;aGk=" in told and "[bold]loud[/]" in told
    show(request_id, [running.policy_file], as_json=True, settings=Settings(home=running.home))
    as_json = capfdbinary.readouterr().out.decode()
    assert orjson.loads(as_json)["record"]["user"] == acts
    for text in (told, as_json):
        assert not any(c in text for c in "\x1b\x07\x9b\u202e")
