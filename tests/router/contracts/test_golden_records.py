"""Records that released versions wrote stay readable, whatever the contract becomes."""

import asyncio
import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from router.contracts.decision import Deferral, Tier
from router.contracts.records import AnswerKind, Rights, read_record
from router.policy.policy import LogPart
from router.store.record_json import kept_record
from router.store.sqlite import SqliteStore

GOLDEN = sorted((Path(__file__).parents[2] / "golden").glob("record_v*.json"))


def _filled(part: Any) -> Any:
    """Without what is None: absent and None mean the same."""
    if isinstance(part, dict):
        return {key: _filled(value) for key, value in part.items() if value is not None}
    return [_filled(item) for item in part] if isinstance(part, list) else part


def _keeps(now: Any, written: Any) -> bool:
    """Whether all that was written is still there; fields that came later may be there too."""
    if isinstance(written, dict):
        return all(key in now and _keeps(now[key], value) for key, value in written.items())
    if isinstance(written, list):
        return len(now) == len(written) and all(map(_keeps, now, written))
    return bool(now == written)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_every_old_record_still_loads_and_loses_nothing(path: Path) -> None:
    written = json.loads(path.read_bytes())
    now = _filled(json.loads(kept_record(read_record(path.read_bytes()), LogPart(redact=()))))
    assert _keeps(now, _filled(written))


def test_a_full_record_means_what_it_meant() -> None:
    record = read_record(next(p for p in GOLDEN if p.stem == "record_v1_full").read_bytes())
    assert (record.tier, record.deferral, record.bundle) == (
        Tier.TEACHER,
        Deferral.CONFIDENCE,
        "20261122-050000-ab12",
    )
    assert record.cost_usd == 3 * Decimal("0.0004125")
    assert record.saved_usd == -2 * Decimal("0.0004125")
    served = record.answers[0]
    assert (served.kind, served.training_rights) == (AnswerKind.SERVED, Rights.ALLOWED)
    assert record.audit is not None and record.audit.acceptable is False


def test_old_rows_are_read_from_a_database(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    with closing(SqliteStore(path, {"default": LogPart()})) as store:
        asyncio.run(store.flush())
        with closing(sqlite3.connect(path)) as db, db:
            for old in GOLDEN:
                body = old.read_text()
                db.execute(
                    "INSERT INTO records (request_id, policy, created_at, body) VALUES (?, 'p', 0, ?)",
                    (json.loads(body)["request_id"], body),
                )
        assert len(list(store.records(embeddings=True))) == len(GOLDEN) >= 3
