"""Requests that a teacher writes and answers: for what is weak, within a budget, kept once, and never measured by."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from distiller.data.dataset import build
from distiller.data.files import read
from distiller.data.rows import DatasetRow, row_of
from distiller.progress import SilentProgress
from distiller.synthesis.kinds import weak_kinds
from distiller.synthesis.plan import planned
from distiller.synthesis.run import Report, synthesize
from distiller.synthesis.shelf import kept
from router.contracts.records import Rights
from router.contracts.rounds import history, training_costs
from router.errors import PolicyError, TrainingError
from router.judges.judge import Judges
from router.policy.policy import Policy
from router.scoring.text.encoder import Encoder, load_encoder
from router.settings import Settings
from tests.distiller.synthesis.fake_teacher import CARDS, PODS, SYSTEM, Teacher, home, record
from tests.fakes import Script, served

EACH = Decimal("0.00013")
"""What one call costs: 100 tokens in at 1 USD a million, 10 out at 3."""


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(Settings.from_env().cache)


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    upstream = Teacher()
    with served(upstream) as url:
        upstream.url = url
        yield upstream


def run(policy: Policy, settings: Settings, encoder: Encoder, usd: str = "1", **more: Any) -> Report:
    return synthesize(
        policy, settings, {}, usd=Decimal(usd), encoder=lambda: encoder, tell=more.pop("tell", SilentProgress()), **more
    )


def test_a_kind_that_the_student_fails_at_is_found_and_only_training_rows_are_shown(
    teacher: Teacher, encoder: Encoder, tmp_path: Path
) -> None:
    policy, settings, _ = home(tmp_path, teacher)
    plan = planned(policy, settings, {}, lambda: encoder, folder=tmp_path / "data", per_cluster=8)
    (kind,) = plan.kinds
    assert (kind.name, kind.why, kind.wanted, kind.rows, kind.judged, kind.wrong) == ("ops", "failing", 8, 15, 5, 5)
    shown = {shot.messages[-1]["content"] for form in kind.forms for shot in form.shots}
    assert len(shown) == kind.train == 9
    assert shown <= set(PODS) - set(PODS[::3])  # none that was audited
    assert teacher.seen == []


def test_a_thin_kind_is_filled_up_to_what_the_policy_wants(teacher: Teacher, encoder: Encoder, tmp_path: Path) -> None:
    policy, settings, _ = home(tmp_path, teacher)
    plan = planned(policy, settings, {}, lambda: encoder, folder=tmp_path / "data", per_cluster=50)
    failing, *thin = plan.kinds
    assert (failing.why, failing.wanted) == ("failing", 50)
    assert len(thin) == 4 and all(kind.name.split(":")[0] == "cards" for kind in thin)  # what may be asked of a card
    assert all((kind.why, kind.wanted, kind.wrong) == ("thin", 50 - kind.train, 0) for kind in thin)


def test_where_answers_are_labels_each_is_a_kind_however_few_rows_it_has(
    teacher: Teacher, encoder: Encoder, tmp_path: Path
) -> None:
    policy, *_ = home(tmp_path, teacher)

    def weak(answers: list[str]) -> dict[str, tuple[int, int]]:
        records = [record(n, text, answer) for n, (text, answer) in enumerate(zip(CARDS, answers, strict=False))]
        rows = [row for r in records if isinstance(row := row_of(r, policy, Judges(policy.judge)), DatasetRow)]
        return {kind.name: (kind.rows, kind.wanted) for kind in weak_kinds(rows, [], 20, encoder)[0]}

    assert weak(["usual"] * 20 + ["seldom"] * 3) == {"seldom": (3, 17)}
    assert weak(["usual"] * 20 + ["seldom"] * 2) == {}, "two are too few to write like"
    texts = weak([f"an answer of its own, {n}" for n in range(60)])
    assert len(texts) == 3 and all(rows == 15 for rows, _ in texts.values()), "answers that differ say nothing"


def test_what_is_written_is_answered_twice_kept_as_a_clients_request_would_be_and_paid_for(
    teacher: Teacher, encoder: Encoder, tmp_path: Path
) -> None:
    policy, settings, _ = home(tmp_path, teacher)
    report = run(policy, settings, encoder, per_cluster=8)
    rows = kept(settings, policy)
    assert report.rows == len(rows) == 8
    assert report.stopped == ""
    assert all(row.synthetic and row.answer == "ops" and row.rights == "allowed" for row in rows)
    assert all([m["role"] for m in row.messages] == ["system", "user"] for row in rows)
    assert {row.messages[0]["content"] for row in rows} == {SYSTEM}
    assert {row.options["max_tokens"] for row in rows} == {50}
    assert len({row.prompt for row in rows}) == 8
    firsts, seconds = ([b for b in teacher.answered if b["temperature"] == t] for t in (0, 1.0))
    assert len(firsts) == len(seconds) == 8
    assert all(b["max_tokens"] == 50 for b in firsts)
    assert Decimal(report.cost_usd) == EACH * len(teacher.seen) == EACH * (len(teacher.written) + 16)
    assert [usd for _, usd in training_costs(settings.bundles("p"), settings.work("p"))] == [Decimal(report.cost_usd)]
    assert history(settings.work("p")) == []  # it is no round
    hows = {b["messages"][-1]["content"].split("same kind. ")[1].split(".")[0] for b in teacher.written}
    assert len(hows) == len(teacher.written)  # each time with another instruction
    asked = dict(zip((f"req-{100 + n}" for n in range(15)), PODS, strict=True))
    for row in rows:  # it is known which requests it was written like
        assert row.shown and any(all(asked[i] in str(b) for i in row.shown) for b in teacher.written)


def test_synthetic_rows_are_trained_on_and_never_measure(teacher: Teacher, encoder: Encoder, tmp_path: Path) -> None:
    policy, settings, _ = home(tmp_path, teacher)
    run(policy, settings, encoder, per_cluster=8)
    records = [record(n, text, "cards", right=True if n % 3 == 0 else None) for n, text in enumerate(CARDS)]
    built = build(records, policy, tmp_path / "with", written=kept(settings, policy))
    assert sum(row.synthetic for row in read(built.train)) == 8
    assert not any(row.synthetic for part in (built.dev, built.holdout) for row in read(part))
    taken_back = policy.model_copy(
        update={"teacher": policy.teacher.model_copy(update={"training_rights": Rights.FORBIDDEN})}
    )
    assert kept(settings, taken_back) == []


def test_what_has_enough_is_not_written_for_again(teacher: Teacher, encoder: Encoder, tmp_path: Path) -> None:
    policy, settings, _ = home(tmp_path, teacher)
    run(policy, settings, encoder, per_cluster=5)
    before = len(teacher.seen)
    again = run(policy, settings, encoder, per_cluster=5)
    assert (again.rows, again.cost_usd, len(teacher.seen)) == (0, "0", before)
    assert run(policy, settings, encoder, per_cluster=8).rows == 3


def test_without_the_right_to_train_nothing_is_asked(teacher: Teacher, encoder: Encoder, tmp_path: Path) -> None:
    policy, settings, _ = home(tmp_path, teacher)
    part = policy.teacher.model_copy(update={"training_rights": Rights.FORBIDDEN})
    with pytest.raises(TrainingError, match=r"i_have_the_right_to_train_on: \[big\]"):
        run(policy.model_copy(update={"teacher": part}), settings, encoder)
    assert teacher.seen == []
    part = part.model_copy(update={"i_have_the_right_to_train_on": ("big",)})
    stated = policy.model_copy(update={"teacher": part})
    assert run(stated, settings, encoder, per_cluster=5).rows == 5
    assert {row.rights for row in kept(settings, stated)} == {"stated"}


def test_without_a_key_nothing_is_asked(teacher: Teacher, encoder: Encoder, tmp_path: Path) -> None:
    policy, settings, _ = home(tmp_path, teacher)
    part = policy.teacher.model_copy(update={"api_key_env": "BIG_KEY"})
    with pytest.raises(PolicyError, match="no API key for big"):
        run(policy.model_copy(update={"teacher": part}), settings, encoder)


def test_copies_of_training_and_evaluation_requests_are_thrown_out(
    teacher: Teacher, encoder: Encoder, tmp_path: Path
) -> None:
    policy, settings, _ = home(tmp_path, teacher)
    audited, trained = PODS[0], PODS[1]
    teacher.writes = lambda n, shown: (audited, trained, f"{trained}!", audited.upper(), "kubernetes ok")[n % 5]
    report = run(policy, settings, encoder, per_cluster=5)
    assert {row.messages[-1]["content"] for row in kept(settings, policy)} == {"kubernetes ok"}
    assert report.out["copy of an evaluation request"] == 2 * len(teacher.written)
    assert report.out["copy of a training request"] == 3 * len(teacher.written) - 1


def test_answers_that_refuse_are_cut_off_or_change_are_thrown_out(
    teacher: Teacher, encoder: Encoder, tmp_path: Path
) -> None:
    policy, settings, _ = home(tmp_path, teacher)
    usual = teacher.answer

    def answer(body: dict[str, Any]) -> Script:
        text, again = body["messages"][-1]["content"], body.get("temperature") == 1.0
        if "berlin" in text:
            return Script(text="I'm sorry, but I can't help with that.")
        if "osaka" in text:
            return Script(text="ops and", finish_reason="length")
        if "lima" in text and again:
            return Script(text="cards")
        return usual(body)

    teacher.answer = lambda body: usual(body) if "Write 5 new" in str(body) else answer(body)
    report = run(policy, settings, encoder, per_cluster=8)
    rows = kept(settings, policy)
    assert rows and not any(place in row.prompt for row in rows for place in ("berlin", "osaka", "lima"))
    assert report.out["empty, refused, cut off or not in the asked form"] > 0
    assert report.out["answered otherwise when asked again"] > 0


def test_the_asked_form_is_kept(teacher: Teacher, encoder: Encoder, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"team": {"type": "string"}}, "required": ["team"]}
    form = {"type": "json_schema", "json_schema": {"name": "team", "schema": schema}}
    policy, settings, _ = home(tmp_path, teacher, judge="json")
    plan = planned(policy, settings, {}, lambda: encoder, folder=tmp_path / "data", per_cluster=5)
    assert plan.kinds
    from distiller.synthesis.filters import is_whole

    asked = {"response_format": form}
    assert is_whole({"content": '{"team": "ops"}'}, "stop", asked)
    assert not is_whole({"content": '{"group": "ops"}'}, "stop", asked)
    assert not is_whole({"content": "", "tool_calls": [{"function": {"name": "f"}}]}, "tool_calls", {})


def test_a_language_model_that_judges_is_paid_from_the_same_budget(
    teacher: Teacher, encoder: Encoder, tmp_path: Path
) -> None:
    model = Teacher()
    model.model, model.answer = "judge-1", lambda body: Script(text="VERDICT: TIE")
    with served(model) as url:
        judge = {"name": "llm", "model": "judge-1", "url": f"{url}/v1", "usd_per_million": {"input": 1, "output": 3}}
        policy, settings, _ = home(tmp_path, teacher, judge=judge)
        teacher.says = lambda text: f"ops, since {len(teacher.seen)} saw it"  # the words differ each time
        report = run(policy, settings, encoder, per_cluster=5)
    assert report.rows == 5
    assert len(model.seen) == 10  # in both orders
    assert Decimal(report.cost_usd) == EACH * (len(teacher.seen) + len(model.seen))


def test_the_budget_is_never_exceeded_with_calls_in_flight(teacher: Teacher, encoder: Encoder, tmp_path: Path) -> None:
    policy, settings, _ = home(tmp_path, teacher)
    report = run(policy, settings, encoder, usd="0.012", per_cluster=50)
    assert report.stopped == "the budget is spent"
    assert Decimal("0.005") < Decimal(report.cost_usd) <= Decimal("0.012")
    assert Decimal(report.cost_usd) == EACH * len(teacher.seen)
    assert 0 < report.rows == len(kept(settings, policy))
    failing, *thin = report.kept.values()
    assert failing == report.rows and not any(thin)  # it goes where the student fails first


def test_a_budget_that_is_too_small_for_one_call_spends_nothing(
    teacher: Teacher, encoder: Encoder, tmp_path: Path
) -> None:
    policy, settings, _ = home(tmp_path, teacher)
    report = run(policy, settings, encoder, usd="0.0001", per_cluster=50)
    assert (report.cost_usd, report.rows, teacher.seen) == ("0", 0, [])


def test_what_no_usage_was_told_of_counts_as_all_that_it_may_have_cost(
    teacher: Teacher, encoder: Encoder, tmp_path: Path
) -> None:
    policy, settings, _ = home(tmp_path, teacher)
    usual = teacher.answer
    teacher.answer = lambda body: Script(text=usual(body).text, usage=None)
    report = run(policy, settings, encoder, usd="0.02", per_cluster=50)
    assert Decimal(report.cost_usd) <= Decimal("0.02")
    assert Decimal(report.cost_usd) > EACH * len(teacher.seen)


def test_a_teacher_that_fails_stops_the_run_and_what_it_surely_did_not_bill_is_not_booked(
    teacher: Teacher, encoder: Encoder, tmp_path: Path
) -> None:
    policy, settings, _ = home(tmp_path, teacher)
    teacher.always(status=500)
    report = run(policy, settings, encoder, per_cluster=50)
    assert "calls failed: big answered 500" in report.stopped
    assert report.cost_usd == "0"
    teacher.answer = lambda body: Script(raw=b"what?")  # paid for, for all that anybody knows
    report = run(policy, settings, encoder, per_cluster=50)
    assert "no chat completion" in report.stopped
    assert Decimal(report.cost_usd) > 0


class Killed(SilentProgress):
    """Ends the run as a kill would, once so many rows are there."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, done: int, of: int, note: str = "") -> None:
        if done >= self.at:
            raise KeyboardInterrupt


def test_a_run_that_was_cut_off_goes_on_and_pays_nothing_twice(
    teacher: Teacher, encoder: Encoder, tmp_path: Path
) -> None:
    policy, settings, _ = home(tmp_path, teacher)
    with pytest.raises(KeyboardInterrupt):
        run(policy, settings, encoder, per_cluster=8, tell=Killed(5))
    assert kept(settings, policy) == []
    report = run(policy, settings, encoder, per_cluster=8)
    bodies = [str(s.body) for s in teacher.seen]
    assert len(bodies) == len(set(bodies))
    assert report.rows == 8
    assert Decimal(report.cost_usd) >= EACH * len(teacher.seen)


def test_a_run_with_a_name_is_made_once(teacher: Teacher, encoder: Encoder, tmp_path: Path) -> None:
    policy, settings, _ = home(tmp_path, teacher)
    first = run(policy, settings, encoder, per_cluster=5, run="round-1")
    asked = len(teacher.seen)
    assert run(policy, settings, encoder, per_cluster=5, run="round-1") == first
    assert len(teacher.seen) == asked


def test_what_a_dead_run_spent_is_booked_when_it_is_too_old_to_go_on_with(
    teacher: Teacher, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, settings, _ = home(tmp_path, teacher)
    with pytest.raises(KeyboardInterrupt):
        run(policy, settings, encoder, per_cluster=8, tell=Killed(5))
    before = len(teacher.seen)
    monkeypatch.setattr("distiller.synthesis.run.STALE_SECONDS", 0)
    run(policy, settings, encoder, per_cluster=5)
    booked = sum((usd for _, usd in training_costs(settings.bundles("p"), settings.work("p"))), Decimal(0))
    assert booked >= EACH * len(teacher.seen) > EACH * before


def test_an_empty_log_asks_nobody(teacher: Teacher, encoder: Encoder, tmp_path: Path) -> None:
    policy, _, _ = home(tmp_path, teacher)
    report = run(policy, Settings(home=tmp_path / "other"), encoder)
    assert (report.rows, teacher.seen) == (0, [])
