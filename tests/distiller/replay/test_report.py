"""`locum replay` over a log whose truth is known: what it says of a policy is what that policy gives."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from rich.console import Console

from distiller.replay.log import read_jsonl, read_log
from distiller.replay.page import page
from distiller.replay.plans import Plan, Way, random_sample, sample_of
from distiller.replay.plot import plot
from distiller.replay.report import plan_of
from distiller.replay.report import replay as replayed
from distiller.replay.tables import table
from distiller.replay.traffic import Traffic, bundle_of, traffic_of
from router.contracts.bundles import Evidence, Thresholds
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import LengthBasis, Record
from router.errors import StoreError
from router.pricing import Prices, counterfactual_usd
from router.routing.lengths import AuditedLengths
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.statistics.estimates import figures
from router.scoring.text.features import extract
from tests.distiller.replay.known_log import POLICY, TEACHER, Recorded, commands, policy, read, signals


def test_another_threshold_is_told_within_its_intervals_from_the_log_of_this_one() -> None:
    recorded = Recorded()
    by = policy(accept={"cascade": False})
    traffic = read(recorded.records(), by)
    quiet = by.audit.model_copy(update={"rate": 0.0})
    for threshold in (0.3, 0.5, 0.8):
        found = figures(sample_of(traffic, Plan(threshold), quiet))
        for name, value in recorded.given(threshold).items():
            assert found[name].holds(value), (threshold, name)
        assert found["share"].estimate == pytest.approx(recorded.given(threshold)["share"])


def test_audits_and_exploration_are_in_cost_and_share() -> None:
    traffic = read(Recorded().records(), policy())
    without = policy().audit.model_copy(update={"rate": 0.0})
    audited = figures(sample_of(traffic, Plan(0.5), without.model_copy(update={"rate": 0.1})))
    explored = figures(sample_of(traffic, Plan(0.5), without.model_copy(update={"explore": 0.1})))
    plain = figures(sample_of(traffic, Plan(0.5), without))
    capped = figures(sample_of(traffic, Plan(0.5), without.model_copy(update={"rate": 0.1, "usd_per_day": Decimal(0)})))
    assert audited["cost"].estimate > capped["cost"].estimate > plain["cost"].estimate  # type: ignore[operator]
    assert explored["share"].estimate == pytest.approx(0.9 * plain["share"].estimate)  # type: ignore[operator]


LLM = {"name": "llm", "model": "judge", "usd_per_million": {"input": 1, "output": 1}}


def judged(recorded: Recorded, **audit: Any) -> list[Record]:
    return [replace(r, audit=replace(r.audit, **audit) if r.audit else None) for r in recorded.records()]


def test_a_judge_that_costs_is_in_the_cost_by_what_its_verdicts_cost() -> None:
    recorded = Recorded()
    records = judged(recorded, judge="llm:judge", judge_usd=Decimal("0.01"))
    dear, free = policy(judge=LLM), policy()
    with_judge, without = read(records, dear), read(records, free)
    assert with_judge.unpriced == () and with_judge.verdict_seen == pytest.approx(0.01)
    audit = dear.audit  # one in five, and nearly no cap
    costs = [figures(sample_of(t, Plan(0.5), audit))["cost"] for t in (with_judge, without)]
    assert costs[0].estimate - costs[1].estimate == pytest.approx(0.2 * 0.01)  # type: ignore[operator]
    capped = audit.model_copy(update={"usd_per_day": Decimal(0)})
    assert figures(sample_of(with_judge, Plan(0.5), capped))["cost"].estimate == pytest.approx(
        figures(sample_of(without, Plan(0.5), capped))["cost"].estimate
    )


def test_a_judge_of_whom_the_log_has_no_verdict_is_named_as_not_counted() -> None:
    records = judged(Recorded(300), judge="normalised")
    by = policy(judge={"name": "feedback", "otherwise": LLM})
    traffic = read(records, by)
    assert traffic.unpriced == ("feedback, else llm:judge",) and not traffic.verdict.any()
    said = StringIO()
    Console(file=said, width=1000).print(table(replayed(traffic, by, None, ahead=100)))
    assert "What feedback, else llm:judge costs is not: it gave no verdict in this log" in said.getvalue()
    spoken = judged(Recorded(300), judge="feedback", judge_usd=Decimal("0.5"))  # by users, since it had judged
    assert read(spoken, by).verdict_seen == pytest.approx(0.5)


def test_bundles_are_never_pooled() -> None:
    recorded = Recorded(400)
    records = [recorded.record(i, bundle="b-1" if i < 100 else "b-2") for i in range(400)]
    rows, names = read_log([*records, recorded.record(0, policy="other")], [policy()])
    assert names == {"default": 400, "other": 1}
    assert bundle_of(rows, "b-1") == "b-1"  # the live one
    assert bundle_of(rows, "b-9") == "b-2"  # the newest in the log
    traffic = traffic_of(rows, 0, policy(), None, "b-1")
    assert len(traffic) == 100 and traffic.left_out == {"of other bundles": 300, "without a score": 0}
    with pytest.raises(StoreError, match=r"b-3; it has b-2 \(300\), b-1 \(100\)"):
        bundle_of(rows, None, "b-3")


def test_what_is_settled_before_the_score_stays_so_by_the_new_policys_own_rules() -> None:
    recorded = Recorded(4)
    said = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "metadata": {"task": "legal"}}
    forced = Decision(tier=Tier.STUDENT, reason=Reason.OVERRIDE, score=0.1)
    unfit = Decision(tier=TEACHER, reason=Reason.CAPABILITY, score=0.9)
    records = [
        recorded.record(0, request=said),
        recorded.record(1, decision=forced, reason=Reason.OVERRIDE, tier=Tier.STUDENT),
        recorded.record(2, decision=unfit, tier=TEACHER),
        recorded.record(3, reason=Reason.CAPABILITY),
    ]
    by = policy(rules=[{"when": {"metadata.task": "legal"}, "send": "teacher"}])
    traffic = read(records, by)
    assert traffic.to_teacher.tolist() == [True, True, True]  # what a client forced is not looked at
    assert not traffic.to_student.any()
    assert read(records, policy()).to_teacher.tolist() == [False, True, True]


def test_a_conversation_that_escalated_stays_up() -> None:
    recorded = Recorded(3)
    recorded.score = np.array([0.4, 0.9, 0.9])
    chat = {"messages": [{"role": "user", "content": "a"}]}
    then = {"messages": [*chat["messages"], {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]}
    records = [recorded.record(i, conversation_id="c", request=chat if i == 0 else then) for i in range(3)]
    assert read(records, policy()).score.tolist() == [0.4, 0.4, 0.4]
    assert read(records, policy(conversation={"affinity": "none"})).score.tolist() == [0.4, 0.9, 0.9]


def test_the_cost_of_the_tier_that_was_not_asked_is_told_by_the_audited_pairs() -> None:
    recorded = Recorded(600, threshold=0.0)
    recorded.lengths[:] = (30, 90)
    traffic = read(recorded.records(), policy())
    teacher = float(recorded.answer(0, TEACHER).cost_usd)
    assert traffic.output_ratio == pytest.approx(1 / 3)
    assert traffic.teacher_seen == pytest.approx(teacher)
    assert not np.isnan(traffic.teacher_seen).any()


def test_how_long_the_teachers_answer_would_have_been_is_told_as_everywhere() -> None:
    """By the audits of what the student served, of a task where it has enough of its own; by its own length before."""
    recorded = Recorded(80, threshold=0.0, rate=1.0)
    recorded.lengths[:], recorded.audited[:] = (30, 90), True
    recorded.lengths[40:] = (30, 300)
    for most in (10, 80):
        lengths, records = AuditedLengths(), []
        for i in range(most):
            task = "long" if i >= 40 else "short"
            audited = recorded.record(i, task=task)
            lengths.observe(audited)
            records.append(audited)
        prices = Prices.of(policy())
        teacher_seen = read(records, policy()).teacher_seen
        for i, record in enumerate(records):
            usage, by = lengths.expected(record.task, recorded.usage(i, Tier.STUDENT))
            assert by is (LengthBasis.STUDENT if most == 10 else LengthBasis.TASK)
            expected = float(counterfactual_usd(usage, prices.teacher(), cached_share=0.0))
            assert teacher_seen[i] == pytest.approx(expected)


@pytest.fixture(scope="module")
def cascade() -> tuple[Recorded, Scorer, Traffic]:
    """A log behind a scorer whose second look is worth something."""
    recorded = Recorded(1500, threshold=0.6)
    learn = Recorded(400, seed=9)
    texts = [extract({"messages": [{"role": "user", "content": f"question {i}"}]}) for i in range(400)]
    shown = [Example(texts[i], signals(float(learn.certainty[i])), bool(learn.good[i])) for i in range(400)]
    scorer = Scorer.fit(shown, None)
    return recorded, scorer, read(recorded.records(), policy(), scorer)


def test_the_cascade_is_replayed_where_the_students_answer_was_never_asked_for(
    cascade: tuple[Recorded, Scorer, Traffic],
) -> None:
    recorded, scorer, traffic = cascade
    accept = np.array([
        scorer.accept(float(s), signals(float(c))) for s, c in zip(recorded.score, recorded.certainty, strict=True)
    ])  # fmt: skip
    assert np.isnan(traffic.accept_seen).mean() > 0.1  # the teacher answered those
    for plan in (Plan(0.0, 0.7), Plan(0.5, 0.7)):
        leaves = (recorded.score >= plan.route) & (accept >= (plan.accept or 0))
        found = figures(sample_of(traffic, plan, policy().audit.model_copy(update={"rate": 0.0})))
        assert found["share"].holds(float(leaves.mean()))
        assert found["parity"].holds(1 - float((leaves & ~recorded.good).mean()))


def test_all_is_told_and_the_cheapest_way_is_named(cascade: tuple[Recorded, Scorer, Traffic], tmp_path: Path) -> None:
    traffic = cascade[2]
    by = policy(objective={"parity": {"at_least": 0.8, "confidence": 0.9, "over_requests": None}})
    found = replayed(traffic, by, None, ahead=500)
    assert [o.name for o in found.baselines] == ["random at its share", "always student", "always teacher", "oracle"]
    by_name = {o.name: o.lasting for o in found.baselines}
    assert by_name["always teacher"]["parity"].estimate == 1.0
    assert by_name["always student"]["share"].estimate == 1.0
    mine = found.policies[0].lasting
    assert mine["share"].estimate == pytest.approx(by_name["random at its share"]["share"].estimate, abs=0.02)
    assert mine["parity"].estimate > by_name["random at its share"]["parity"].estimate  # type: ignore[operator]
    assert {c.way for c in found.choices} == {*Way} and found.cheapest is not None
    assert found.cheapest.figures["parity"].estimate >= 0.8  # type: ignore[operator]
    shares = [p.lasting["share"].estimate or 0.0 for p in found.sweeps[Way.ROUTING]]
    assert shares[0] == pytest.approx(0.99, abs=0.02) and shares[-1] == 0.0
    assert shares == sorted(shares, reverse=True)
    plot(found, tmp_path / "replay.png")
    assert (tmp_path / "replay.png").read_bytes()[:4] == b"\x89PNG"


def test_the_page_needs_nothing_else_and_cannot_be_broken_out_of(cascade: tuple[Recorded, Scorer, Traffic]) -> None:
    found = replayed(cascade[2], policy(), None, ahead=100)
    found.policies[0] = type(found.policies[0])(
        "</script><b>", *(getattr(found.policies[0], f) for f in ("plan", "lasting", "coming", "by_audits"))
    )
    html = page(found)
    assert "</script><b>" not in html and html.count("</script>") == 1
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")
    start = html.index("const data = ") + len("const data = ")
    data = json.loads(html[start : html.index(";\n", start)])
    assert data["requests"] == 1500 and len(data["sweeps"]["both"]) > 40


def test_each_objective_comes_to_its_thresholds() -> None:
    traffic = read(Recorded().records(), policy())
    evidence = Evidence(
        target=0.9, confidence=0.95, examples=9, served=9, unacceptable=0, risk_bound=0.1, method="m", over=1000
    )
    bundle = Thresholds(route=0.4, accept=0.66, evidence=evidence)
    plain = {"cascade": False}
    assert plan_of(policy(objective={"threshold": 0.7}), None, traffic) == Plan(0.7)
    assert plan_of(policy(objective={"parity": {"at_least": 0.9}}, accept=plain), bundle, traffic) == Plan(0.66)
    other = plan_of(policy(objective={"parity": {"at_least": 0.85}}, accept=plain), bundle, traffic)
    assert other.route not in (0.4, 0.66) and 0 < other.route < 1  # certified anew, by the log
    half = plan_of(policy(objective={"student_share": 0.5}), None, traffic)
    assert (traffic.score >= half.route).mean() == pytest.approx(0.5, abs=0.01)
    day = float(traffic.teacher_seen.sum()) / traffic.days
    paced = plan_of(policy(objective={"usd_per_day": day / 2}), None, traffic)
    spent = float(traffic.teacher_seen[traffic.score < paced.route].sum()) / traffic.days
    assert spent == pytest.approx(day / 2, rel=0.01)
    with pytest.raises(StoreError, match="less than an hour"):
        short = read(Recorded(20).records(), policy())
        plan_of(policy(objective={"usd_per_day": 1}), None, short)


def test_a_guess_at_random_serves_its_share_and_no_more() -> None:
    traffic = read(Recorded().records(), policy())
    found = figures(random_sample(traffic, 0.4, policy().audit.model_copy(update={"rate": 0.0})))
    assert found["share"].estimate == pytest.approx(0.4)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    return commands(tmp_path, monkeypatch)


def test_replay_says_it_all_from_the_log_or_a_file(home: Callable[..., Any], tmp_path: Path) -> None:
    second = tmp_path / "second.yaml"
    second.write_text(POLICY.replace("0.5}", "0.9}") + "accept: {cascade: false}\n")
    said = home("replay", "--against", str(second), "--out", str(tmp_path / "out"))
    assert said.exit_code == 0, said.output
    assert "2,000 requests over 1.4 days, bundle b-1" in said.output and "second" in said.output
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"replay.html", "replay.png"}
    lines = tmp_path / "log.jsonl"
    lines.write_bytes(b"\n".join(orjson.dumps(asdict(r), default=str) for r in Recorded(300).records()))
    assert "300 requests" in home("replay", "--from", str(lines)).output


def test_what_cannot_be_replayed_is_said_clearly(home: Callable[..., Any], tmp_path: Path) -> None:
    lines = tmp_path / "log.jsonl"
    lines.write_text('{"request_id": "a"}\n')
    with pytest.raises(StoreError, match=r"log.jsonl, line 1 is no record: conversation_id"):
        list(read_jsonl(lines))
    with pytest.raises(StoreError, match="cannot read"):
        list(read_jsonl(tmp_path / "none"))
    for args, words in [
        (("--since", "yesterday"), "say 7d, 12h, or a date"),
        (("--since", "1h"), "no answered request of policy 'default'"),
        (("--bundle", "x"), r"it has b-1 (2000)"),
    ]:
        said = home("replay", *args)
        assert words in str(said.exception), args
    unscored = [Recorded(5).record(i, decision=Decision(tier=TEACHER, reason=Reason.COLD_START)) for i in range(5)]
    with pytest.raises(StoreError, match="none of the 5 answered requests of bundle b-1 has a score"):
        read(unscored, policy())


def test_a_log_without_audits_tells_costs_and_no_quality() -> None:
    recorded = Recorded(500, rate=0.0)
    found = replayed(read(recorded.records(), policy()), policy(), None, ahead=100).policies[0].lasting
    assert found["parity"].estimate is None and found["share"].estimate is not None
    assert math.isfinite(found["cost"].low)


def looked_at(recorded: Recorded, i: int, gain: float, tokens: float, **changes: Any) -> Record:
    """A recorded request as a two-headed scorer decided it."""
    record = recorded.record(i, **changes)
    return replace(record, decision=replace(record.decision, gain=gain, teacher_tokens=tokens))


def test_a_share_is_replayed_by_what_escalating_gains_and_money_by_gain_for_its_cost() -> None:
    recorded = Recorded(400)
    gains, tokens = np.linspace(-0.2, 0.8, 400), np.where(np.arange(400) % 2, 1000.0, 20.0)
    records = [looked_at(recorded, i, float(gains[i]), float(tokens[i])) for i in range(400)]
    share, money = policy(objective={"student_share": 0.5}), policy(objective={"usd_per_day": 1})
    by_share, by_money = read(records, share), read(records, money)
    assert by_share.score.argsort().tolist() == (-gains).argsort().tolist()
    cheap, dear = by_money.score[::2][100:], by_money.score[1::2][100:]
    assert (cheap < dear).all(), "as much is gained by a short answer for less"
    assert (by_money.guess == by_share.guess).all() and by_share.guess.tolist() == recorded.score.tolist()
    plan = plan_of(share, None, by_share)
    assert figures(sample_of(by_share, plan, share.audit))["share"].estimate == pytest.approx(0.5, abs=0.02)
    floor = read(records, policy())
    assert floor.score.tolist() == recorded.score.tolist()


def test_what_old_records_do_not_tell_of_is_ranked_by_the_score() -> None:
    recorded = Recorded(100)
    for objective in ({"student_share": 0.5}, {"usd_per_day": 1}):
        traffic = read(recorded.records(), policy(objective=objective))
        assert traffic.score.tolist() == recorded.score.tolist()
    rows, _ = read_log([looked_at(recorded, i, 0.5, 10.0) for i in range(100)], [policy()])
    by_score = traffic_of(rows, 0, policy(objective={"student_share": 0.5}), None, "b-1", by_score=True)
    assert by_score.score.tolist() == recorded.score.tolist(), "a tuned threshold is held against the score"
