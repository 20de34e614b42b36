"""Whatever a provider tells of its usage, on whichever surface it was asked, its bill is what is booked."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.fakes import DEADLINE_SECONDS, FakeUpstream, World, served, world
from tests.router.wire.test_usage import PRICE, SHAPES

TURNS = [{"role": "user", "content": "hi"}]
SURFACES: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": TURNS},
    "completions": {"prompt": "hi"},
    "responses": {"input": "hi"},
    "messages": {"messages": TURNS, "max_tokens": 50},
}
TICK = Decimal("1e-6")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    provider = FakeUpstream("sold")
    with served(provider) as provider.url:
        teacher = {
            "model": "sold",
            "url": f"{provider.url}/v1",
            "api_key_env": "TEACHER_KEY",
            "usd_per_million": PRICE.model_dump(mode="json", exclude_defaults=True),
            "timeout_seconds": DEADLINE_SECONDS,
        }
        with world(tmp_path_factory.mktemp("bills"), teacher=teacher) as found:
            found.teacher = provider
            yield found


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("surface", SURFACES)
def test_the_true_bill_is_in_the_record(proxy: World, surface: str, stream: bool) -> None:
    wrong = {}
    for name, (usage, bill, beside) in SHAPES.items():
        proxy.teacher.always(text="hi", usage=usage, extra=dict(beside))
        body = {"model": "locum/teacher", "stream": stream, **SURFACES[surface]}
        answer = httpx.post(f"{proxy.url}/v1/{surface}", json=body, timeout=DEADLINE_SECONDS)
        assert answer.status_code == 200, (name, answer.text)
        record = proxy.record(answer.headers["x-locum-request-id"])
        # A policy that states a price believes no bill of nothing.
        due = 1100.0 if usage.get("cost") == 0 else bill
        booked = [float(a.cost_usd / TICK) for a in record.answers]
        if booked != [pytest.approx(due)] or record.answers[0].usage.estimated:
            wrong[name] = (booked, due, record.answers[0].usage)
    assert not wrong
