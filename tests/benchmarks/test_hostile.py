"""The measure of a proxy's silence under hostile bodies, on a few of them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.hostile import _line, measure, table
from benchmarks.hostile_kinds import KINDS


def test_kinds_are_many_and_have_names_of_their_own() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 30


def test_each_kind_tells_what_became_of_it_and_how_long_the_proxy_was_silent(tmp_path: Path) -> None:
    wanted = ("plain", "schema, 2**25 anyOf", "nested 100,000 deep", "15,000 calls with one id")
    rows = measure([kind for kind in KINDS if kind.name in wanted], tmp_path, 2)
    assert {row["name"]: row["statuses"] for row in rows} == {name: [200] for name in wanted} | {wanted[2]: [400]}
    assert all(row["asked"] > 0 and row["silence_ms"] >= row["median_ms"] > 0 for row in rows)
    assert table(rows).row_count == len(rows) == len([_line(row) for row in rows])
