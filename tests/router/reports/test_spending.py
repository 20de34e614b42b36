"""Spend by task, user and key: whole, bounded, and without anybody's key."""

from decimal import Decimal

from router.contracts.decision import Tier
from router.contracts.records import Answer, AnswerKind, Usage
from router.reports import spending
from router.reports.spending import NOBODY, OTHERS, Spending
from router.reports.summary import Summary
from tests.router.conftest import MakeRecord


def test_each_request_counts_once_by_task_by_user_and_by_key(make_record: MakeRecord) -> None:
    found = Spending()
    for n, task in enumerate(["legal", "legal", None]):
        found.add(make_record(f"r{n}", task=task, user="ann", owner="k1"))
    assert {name: line.requests for name, line in found.dearest("task")} == {"legal": 2, NOBODY: 1}
    assert [(name, line.usd) for name, line in found.dearest("user")] == [("ann", Decimal("0.0015"))]
    assert [name for name, _ in found.dearest("key")] == ["k1"]


def test_names_without_end_are_told_together_and_none_of_their_money_is_lost(make_record: MakeRecord) -> None:
    found = Spending()
    for n in range(50):
        found.add(make_record(f"r{n}", user=f"u{n}"))
    shown = dict(found.dearest("user", 10))
    assert len(shown) == 11 and shown[OTHERS].requests == 40
    assert sum(line.usd for line in shown.values()) == 50 * Decimal("0.0005")
    known = found.lines["user"]
    known |= {f"x{n}": spending.SpendLine() for n in range(spending.MOST_NAMES)}
    found.add(make_record("last", user="one more"))
    assert "one more" not in known and known[OTHERS].requests == 1


def test_embeddings_stand_beside_what_was_saved_and_what_is_estimated_is_told(make_record: MakeRecord) -> None:
    summary = Summary()
    summary.add(make_record("r1"), may_train=True)
    saved = summary.saved_usd
    guessed = Usage(input_tokens=10, estimated=True)
    paid = Answer(tier=Tier.TEACHER, kind=AnswerKind.EMBEDDED, model="v", cost_usd=Decimal("0.01"), usage=guessed)
    summary.add(make_record("r2", tier=None, embedding=True, answers=[paid], user="ann"), may_train=True)
    assert (summary.requests, summary.embeddings, summary.saved_usd) == (1, 1, saved)
    assert summary.embeddings_usd == summary.estimated_usd == Decimal("0.01")
    told = summary.as_dict()
    assert told["embeddings_usd"] == "0.01"
    assert {line["name"]: line["usd"] for line in told["spent_by"]["user"]} == {"ann": "0.01", NOBODY: "0.0005"}
