"""A record to start from, and the student that tests ask."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Record, Rights, Usage
from router.engine.weights import base_student
from router.settings import Settings

MakeRecord = Callable[..., Record]
STUDENT = "smollm2-135m-instruct"


def _make_record(request_id: str = "r-1", *, tier: Tier | None = Tier.STUDENT, **changes: Any) -> Record:
    answer = Answer(
        tier=tier or Tier.STUDENT,
        kind=AnswerKind.SERVED,
        model="small",
        message={"role": "assistant", "content": "ask a@example.com"},
        finish_reason="stop",
        usage=Usage(input_tokens=100, cached_input_tokens=40, output_tokens=10),
        cost_usd=Decimal("0.0005"),
        seconds=0.2,
        first_token_seconds=0.05,
        training_rights=Rights.ALLOWED,
    )
    decision = Decision(tier=tier or Tier.STUDENT, reason=Reason.SCORE, score=0.9, threshold=0.7, propensity=0.02)
    values: dict[str, Any] = {
        "request_id": request_id,
        "conversation_id": f"c-{request_id}",
        "created_at": 1_000_000.0,
        "policy": "default",
        "policy_version": "0123456789ab",
        "bundle": "b-1",
        "features_version": "1",
        "decision": decision,
        "tier": tier,
        "reason": Reason.SCORE,
        "request": {"model": "gpt-4o", "messages": [{"role": "user", "content": "I am b@example.com"}]},
        "answers": [answer] if tier else [],
        "counterfactual_usd": Decimal("0.002"),
        "seconds": 0.25,
        "overhead_seconds": 0.0008,
    }
    return Record(**(values | changes))


@pytest.fixture
def make_record() -> MakeRecord:
    """``make_record(request_id, tier=..., **fields)``: a request the student served for $0.0005 of $0.002."""
    return _make_record


@pytest.fixture(scope="session")
def cache() -> Path:
    """The machine's own cache: dequantising once is enough for all runs."""
    return Settings.from_env().cache


@pytest.fixture(scope="session")
def base(cache: Path) -> Path:
    return base_student(STUDENT, cache)
