"""Prompts that a label teacher answers again: within a budget, once, kept where whole, never what is audited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from distiller.data.dataset import build
from distiller.data.files import read
from distiller.data.rows import DatasetRow
from distiller.labels.run import CALLS, LabelReport, label, labelled_rows
from distiller.payments import Journal
from distiller.progress import SilentProgress
from router.contracts.records import Record, Rights
from router.contracts.rounds import label_spending, training_costs
from router.errors import PolicyError
from router.policy.policy import Policy, load_policy
from router.settings import Settings
from tests.distiller.labels.label_server import EACH_USAGE, LabelServer
from tests.distiller.synthesis.fake_teacher import CARDS, PODS, policy_file, record
from tests.fakes import NO_ENV, FakeUpstream, Script, served

EACH = Decimal("0.00013")
"""What one call costs: 100 tokens in at 1 USD a million, 10 out at 3; in a batch half of it."""


@pytest.fixture
def server() -> Iterator[LabelServer]:
    upstream = LabelServer()
    with served(upstream) as url:
        upstream.url = url
        yield upstream


def policy_of(folder: Path, server: LabelServer, **labels: Any) -> Policy:
    price = {"input": 1, "output": 3, "tiers": {"batch": {"input": 0.5, "output": 1.5}}}
    named = {"model": "open-weights", "url": f"{server.url}/v1", "usd_per_million": price, "training_rights": "allowed"}
    teacher = {
        "model": "big",
        "url": "http://127.0.0.1:1/v1",
        "usd_per_million": {"input": 1, "output": 3},
        "training_rights": "forbidden",
    }
    file = policy_file(folder, FakeUpstream("big"), distil={"labels_from": named | labels})
    values = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(values | {"teacher": teacher}))
    return load_policy(file)


def forbidden(record: Record) -> Record:
    return replace(record, answers=[replace(a, training_rights=Rights.FORBIDDEN) for a in record.answers])


def log() -> list[Record]:
    made = [record(n, text, "cards", right=True if n % 3 == 0 else None) for n, text in enumerate(CARDS)]
    made += [record(100 + n, text, "ops", right=False if n % 3 == 0 else None) for n, text in enumerate(PODS)]
    return [forbidden(one) for one in made]


def unlabelled(policy: Policy, folder: Path, records: list[Record]) -> list[DatasetRow]:
    built = build(records, policy, folder / "plan", labelled=lambda row: replace(row, rights="wanted"))
    return [row for row in read(built.train) if row.rights == "wanted"]


def run(
    policy: Policy, folder: Path, records: list[Record] | None = None, env: Mapping[str, str] = NO_ENV
) -> tuple[LabelReport, list[DatasetRow]]:
    """A round's labels, and what is trained on by them."""
    settings, out = Settings(home=folder / "home", cache=folder / "cache"), folder / "round"
    out.mkdir(exist_ok=True)
    records = log() if records is None else records
    wanted = unlabelled(policy, folder, records)
    report = label(policy, settings, env, wanted, out, encoder=lambda: None, tell=SilentProgress())
    labels = labelled_rows(out)
    built = build(records, policy, folder / "with", labelled=lambda row: labels.get(row.request_id, row))
    return report, read(built.train)


def asked_texts(server: LabelServer) -> set[str]:
    bodies = [*(s.body for s in server.seen), *(line["body"] for line in server.asked_in_batches)]
    return {body["messages"][-1]["content"] for body in bodies}


@pytest.mark.parametrize("batch", [False, True])
def test_what_may_not_be_learnt_from_the_served_teacher_is_answered_by_the_label_teacher(
    server: LabelServer, tmp_path: Path, batch: bool
) -> None:
    policy = policy_of(tmp_path, server, batch=batch)
    report, rows = run(policy, tmp_path)
    assert report.rows == report.wanted == len(rows) > 20
    assert {(row.teacher, row.rights) for row in rows} == {("open-weights", "allowed")}
    assert all(row.answer == ("ops" if "kubernetes" in row.prompt else "cards") for row in rows)
    built = build(
        log(), policy, tmp_path / "again", labelled=lambda r: labelled_rows(tmp_path / "round").get(r.request_id, r)
    )
    assert list(built.rights.used) == [f"open-weights: allowed, label teacher at {server.url}/v1"]
    assert set(built.rights.refused) == {"big: forbidden"}
    assert Decimal(report.cost_usd) == len(rows) * (EACH / 2 if batch else EACH)
    assert bool(server.made) is batch and bool(server.seen) is not batch


@pytest.mark.parametrize("batch", [False, True])
def test_audited_requests_are_never_sent(server: LabelServer, tmp_path: Path, batch: bool) -> None:
    run(policy_of(tmp_path, server, batch=batch), tmp_path)
    audited = {*CARDS[::3], *PODS[::3]}
    assert asked_texts(server) and not asked_texts(server) & audited


def test_what_measures_keeps_the_served_teachers_answers(server: LabelServer, tmp_path: Path) -> None:
    server.says = lambda text: "something else"
    policy = policy_of(tmp_path, server)
    run(policy, tmp_path)
    labels = labelled_rows(tmp_path / "round")
    built = build(log(), policy, tmp_path / "d", labelled=lambda row: labels.get(row.request_id, row))
    for part in (built.dev, built.holdout):
        assert read(part) and {row.answer for row in read(part)} <= {"cards", "ops"}
        assert {row.teacher for row in read(part)} == {"big"}


def test_without_a_label_teacher_nothing_is_trained_on(server: LabelServer, tmp_path: Path) -> None:
    built = build(log(), policy_of(tmp_path, server), tmp_path / "d")
    assert built.counts["train"] == 0


@pytest.mark.parametrize("batch", [False, True])
def test_a_second_round_pays_for_what_is_new_alone(server: LabelServer, tmp_path: Path, batch: bool) -> None:
    policy = policy_of(tmp_path, server, batch=batch)
    first, _ = run(policy, tmp_path)
    again, rows = run(policy, tmp_path)
    assert (Decimal(again.cost_usd), again.rows) == (0, first.rows)
    more = [*log(), forbidden(record(500, "a request that nobody made before, on a stolen card", "cards"))]
    third, rows = run(policy, tmp_path, more)
    assert Decimal(third.cost_usd) in (EACH, EACH / 2)
    assert len(rows) == first.rows + 1
    costs = sum(usd for _, usd in training_costs(tmp_path / "bundles", tmp_path / "home" / "work" / "p"))
    assert costs == Decimal(first.cost_usd) + Decimal(third.cost_usd)


def test_the_budget_of_a_round_is_never_exceeded_and_the_next_round_goes_on(
    server: LabelServer, tmp_path: Path
) -> None:
    policy = policy_of(tmp_path, server, usd_per_round="0.002", concurrency=4)
    first, _ = run(policy, tmp_path)
    assert first.stopped == "the budget is spent" and 0 < first.rows < first.wanted
    assert Decimal(first.cost_usd) <= Decimal("0.002")
    second, rows = run(policy, tmp_path)
    assert first.rows < len(rows) <= second.rows
    assert len(server.seen) == len(asked_texts(server))


def test_a_batch_holds_no_more_than_the_budget(server: LabelServer, tmp_path: Path) -> None:
    policy = policy_of(tmp_path, server, usd_per_round="0.002", batch=True)
    first, _ = run(policy, tmp_path)
    assert first.stopped == "the budget is spent" and 0 < first.rows < first.wanted
    assert Decimal(first.cost_usd) <= Decimal("0.002")


def test_a_server_without_batches_is_asked_call_by_call(server: LabelServer, tmp_path: Path) -> None:
    server.batches = False
    report, rows = run(policy_of(tmp_path, server, batch=True), tmp_path)
    assert len(rows) == report.rows > 20
    assert report.stopped == "open-weights has no batches, so it was asked call by call"


def test_a_batch_that_a_kill_cut_off_is_found_again_and_paid_once(server: LabelServer, tmp_path: Path) -> None:
    policy = policy_of(tmp_path, server, batch=True)

    class Killed(SilentProgress):
        def step(self, done: int, of: int, note: str = "") -> None:
            raise KeyboardInterrupt

    server.looks = 2
    settings, out = Settings(home=tmp_path / "home", cache=tmp_path / "cache"), tmp_path / "round"
    out.mkdir()
    with pytest.raises(KeyboardInterrupt):
        wanted = unlabelled(policy, tmp_path, log())
        label(policy, settings, {}, wanted, out, encoder=lambda: None, tell=Killed())
    journal = Journal(settings.work("p") / CALLS)
    assert len(journal.batches) == 1 and journal.spent > 0
    journal.close()
    report, rows = run(policy, tmp_path)
    assert len(server.made) == 1
    assert len(rows) == report.rows == report.wanted
    assert Decimal(report.cost_usd) == EACH / 2 * len(rows)


def test_a_batch_of_which_only_the_server_knows_is_found_by_its_name(server: LabelServer, tmp_path: Path) -> None:
    policy = policy_of(tmp_path, server, batch=True)
    report, rows = run(policy, tmp_path)
    path = tmp_path / "home" / "work" / "p" / CALLS
    begun = next(line for line in path.read_bytes().split(b"\n") if b'"held"' in line)
    path.write_bytes(b"\n" + begun)  # a kill between the provider's answer and our writing it down
    (path.parent / "rounds.jsonl").unlink()
    again, rows = run(policy, tmp_path)
    assert len(server.made) == 1 and len(rows) == again.rows == report.rows
    assert again.cost_usd == report.cost_usd


def test_a_batch_that_the_server_never_got_is_handed_over_again(server: LabelServer, tmp_path: Path) -> None:
    policy = policy_of(tmp_path, server, batch=True)
    report, _ = run(policy, tmp_path)
    path = tmp_path / "home" / "work" / "p" / CALLS
    begun = next(line for line in path.read_bytes().split(b"\n") if b'"held"' in line)
    path.write_bytes(b"\n" + begun)
    (path.parent / "rounds.jsonl").unlink()
    server.made.clear()
    again, rows = run(policy, tmp_path)
    assert len(server.made) == 1 and len(rows) == again.rows == report.rows
    assert again.cost_usd == report.cost_usd


def test_a_batch_that_is_too_large_for_the_account_is_halved(server: LabelServer, tmp_path: Path) -> None:
    import distiller.labels.batch as batches

    server.most = 20
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "LEAST_REQUESTS", 5)
        report, rows = run(policy_of(tmp_path, server, batch=True), tmp_path)
    assert len(rows) == report.rows == report.wanted > 20
    assert (report.out, report.stopped) == ({}, "")
    assert Decimal(report.cost_usd) == EACH / 2 * len(rows)


def test_an_expired_batch_gives_what_it_has_and_the_rest_is_asked_in_the_next_round(
    server: LabelServer, tmp_path: Path
) -> None:
    policy = policy_of(tmp_path, server, batch=True)
    server.ends = "expired"
    count = 0

    def odd(call: str, line: dict[str, Any]) -> dict[str, Any] | None:
        nonlocal count
        count += 1
        late = {"custom_id": call, "response": None, "error": {"code": "batch_expired", "message": "late"}}
        return late if count % 2 else line

    server.instead = odd
    first, rows = run(policy, tmp_path)
    assert first.out == {"not answered before its batch ended": first.wanted - first.rows}
    assert "expired before all was answered" in first.stopped
    assert Decimal(first.cost_usd) == EACH / 2 * first.rows
    server.ends, server.instead = "completed", lambda call, line: line
    second, rows = run(policy, tmp_path)
    assert second.rows == second.wanted == len(rows)
    assert Decimal(second.cost_usd) == EACH / 2 * (second.rows - first.rows)


def odd_answers(text: str) -> Script | None:
    odd = {
        "berlin": Script(text="I'm sorry, but I can't help with that."),
        "today": Script(text=""),
        "quickly": Script(text="car", finish_reason="length"),
        "abroad": Script(status=400, error={"message": "your prompt was flagged", "code": "content_policy_violation"}),
        "mother": Script(text="The answer is the cards team."),
        "old": Script(text="", message={"tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]}),
    }
    return next((script for word, script in odd.items() if word in text), None)


@pytest.mark.parametrize("batch", [False, True])
def test_odd_answers_are_counted_by_name_and_cost_one_row_each(
    server: LabelServer, tmp_path: Path, batch: bool
) -> None:
    usual = server.answer
    server.answer = lambda body: odd_answers(body["messages"][-1]["content"]) or usual(body)
    if batch:

        def told(call: str, line: dict[str, Any]) -> dict[str, Any]:
            asked = next(a for a in server.asked_in_batches if a["custom_id"] == call)
            script = odd_answers(asked["body"]["messages"][-1]["content"])
            refused = {"status_code": 400, "body": {"error": {"message": "flagged"}}}
            return line | {"response": refused} if script and script.status == 400 else line

        server.instead = told
    records = [
        forbidden(record(n, f"{text}, number {n} of the {word} kind", "cards" if n % 2 else "ops"))
        for n, (text, word) in enumerate((t, w) for t in CARDS for w in ("first", "second"))
    ]
    report, rows = run(policy_of(tmp_path, server, batch=batch), tmp_path, records)
    assert set(report.out) == {
        "empty", "cut off", "turned away by its server", "outside the answers seen", "not in the asked form",
    }  # fmt: skip
    assert report.rows + sum(report.out.values()) == report.wanted
    assert report.rows == len(rows) > 0 and {row.answer for row in rows} == {"cards"}
    assert report.stopped == ""


def test_a_label_teacher_that_stalls_or_is_rate_limited_stops_the_asking_and_the_round_goes_on(
    server: LabelServer, tmp_path: Path
) -> None:
    server.always(hang=True)
    report, rows = run(policy_of(tmp_path, server, timeout_seconds=0.2), tmp_path)
    assert rows == [] and set(report.out) == {"no answer in time"} and "calls failed" in report.stopped
    assert len(server.seen) < 20
    server.always(status=429, headers={"retry-after": "3600"})
    report, rows = run(policy_of(tmp_path, server, timeout_seconds=0.2), tmp_path)
    assert rows == [] and "rate-limited" in report.out and "429" in report.stopped


def test_one_that_takes_none_of_the_requests_is_asked_no_more(server: LabelServer, tmp_path: Path) -> None:
    server.always(status=400, error={"message": "temperature is not supported"})
    report, rows = run(policy_of(tmp_path, server), tmp_path)
    assert rows == [] and len(server.seen) < report.wanted
    assert "calls failed" in report.stopped and report.cost_usd == "0"


def test_agreement_is_told_by_slice_with_its_limits(server: LabelServer, tmp_path: Path) -> None:
    server.says = lambda text: "cards"
    report, _ = run(policy_of(tmp_path, server), tmp_path)
    whole = report.agreement[0]
    pods = sum("kubernetes" in text for text in asked_texts(server))
    assert whole["name"] == "all" and whole["n"] == report.rows
    assert whole["agreed"] == report.rows - pods
    assert whole["low"] < whole["share"] < whole["high"] < 1
    assert {r["name"].split("=")[0] for r in report.agreement[1:]} >= {"length"}
    assert "it agrees with big in" in report.words


def test_without_a_key_or_a_price_nothing_is_asked(server: LabelServer, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no API key for open-weights"):
        run(policy_of(tmp_path, server, api_key_env="NO_SUCH_KEY"), tmp_path)
    with pytest.raises(PolicyError, match=r"distil\.labels_from\.usd_per_million"):
        run(policy_of(tmp_path, server, usd_per_million=None), tmp_path)
    assert server.seen == []


def test_what_labels_cost_is_booked_once(server: LabelServer, tmp_path: Path) -> None:
    report, _ = run(policy_of(tmp_path, server), tmp_path)
    (line,) = label_spending(tmp_path / "home" / "work" / "p")
    assert (line["run"], line["cost_usd"]) == (report.run, report.cost_usd)


def test_a_server_that_says_that_its_answers_may_not_be_trained_on_is_believed(
    server: LabelServer, tmp_path: Path
) -> None:
    policy = policy_of(tmp_path, server)
    first, _ = run(policy, tmp_path)
    asked = len(server.seen)
    server.listing = {"is_trainable_text": False}
    report, rows = run(policy, tmp_path)
    assert rows == [] and report.rows == 0 < first.rows and len(server.seen) == asked
    assert report.stopped == "open-weights's own server says that its answers may not be trained on (is_trainable_text)"


def test_a_server_that_says_that_they_may_be_is_named_in_the_ledger(server: LabelServer, tmp_path: Path) -> None:
    server.listing = {"distillationPolicy": {"status": "allowed"}}
    _, rows = run(policy_of(tmp_path, server), tmp_path)
    assert {row.source for row in rows} == {f"label teacher at {server.url}/v1, whose distillationPolicy allows it"}


def test_lines_of_a_batch_that_are_broken_doubled_or_nobodys_cost_no_other_row(
    server: LabelServer, tmp_path: Path
) -> None:
    body = {"choices": [{"message": {"content": "cards"}, "finish_reason": "stop"}], "usage": EACH_USAGE}
    other = {"custom_id": "who?", "response": {"status_code": 200, "body": body}, "error": None}
    odd: dict[str, Any] = {}

    def told(call: str, line: dict[str, Any]) -> dict[str, Any]:
        odd.setdefault("first", line)
        wrong = {"status_code": 200, "body": {"error": {"message": "inside a 200"}}}
        return line | {"response": wrong} if len(server.asked_in_batches) == 2 else line

    server.instead = told
    policy = policy_of(tmp_path, server, batch=True)
    usual = server._end

    def end(batch: dict[str, Any], status: str) -> None:
        usual(batch, status)
        again = orjson.dumps(odd["first"])
        server.files[batch["output_file_id"]] += b"\n".join(
            [b"", b"{broken", b"[]", b"7", orjson.dumps({"custom_id": 3}), again, orjson.dumps(other), b""]
        )

    server._end = end  # type: ignore[method-assign]
    report, rows = run(policy, tmp_path)
    assert report.out == {"the label teacher failed": 1}
    assert report.rows == report.wanted - 1 == len(rows)
    assert Decimal(report.cost_usd) > EACH / 2 * report.wanted  # that of which nobody knows counts with what was held


def test_a_provider_that_is_down_for_a_while_is_waited_for(server: LabelServer, tmp_path: Path) -> None:
    server.looks, server.down = 1, 5
    report, rows = run(policy_of(tmp_path, server, batch=True), tmp_path)
    assert report.rows == report.wanted == len(rows) and server.down == 0


def test_a_batch_that_stalls_is_cancelled_and_what_it_answered_is_kept(server: LabelServer, tmp_path: Path) -> None:
    import distiller.labels.run as runs

    server.looks = 10**6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "BatchedCalls", partial(runs.BatchedCalls, longest_seconds=0.2))
        report, rows = run(policy_of(tmp_path, server, batch=True), tmp_path)
    assert "cancelled before all was answered" in report.stopped
    assert report.rows == report.wanted == len(rows)


def test_a_batch_that_fails_says_why_without_the_key_and_leaves_no_prompt_behind(
    server: LabelServer, tmp_path: Path
) -> None:
    key = "sk-label-0123456789abcdef"

    def end(batch: dict[str, Any], status: str) -> None:
        batch["status"] = "failed"
        batch["errors"] = {"data": [{"code": "invalid", "message": f"no access with {key}, ask ann@example.org"}]}

    server._end = end  # type: ignore[method-assign]
    policy = policy_of(tmp_path, server, batch=True, api_key_env="LABEL_KEY")
    report, rows = run(policy, tmp_path, env={"LABEL_KEY": key})
    assert rows == [] and Decimal(report.cost_usd) == 0
    assert report.stopped.startswith("open-weights failed a batch: no access with [SECRET]")
    assert "ann@" not in report.stopped
    kept = [path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert not any(key.encode() in content or b"bank card" in content for content in kept)
