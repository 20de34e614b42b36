"""A dataset's Parquet files: one a split, one row a request, in the ``messages`` form that TRL and others read.

``messages`` ends with the teacher's answer. What has no type of its own in Parquet (a request's options, calls of
tools) is JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from distiller.data.rows import FIELDS, DatasetRow
from distiller.data.turns import Turn
from router.errors import DatasetError

ROWS_AT_ONCE = 1024
"""Rows in memory while a file is read or written, and in one of its row groups."""

_JSON = frozenset({"options"})
_TURN = ("role", "content", "tool_calls", "tool_call_id")
_COLUMNS = tuple(name for name in FIELDS if name not in ("answer", "calls"))


def read(path: Path) -> list[DatasetRow]:
    """The rows of one split's file, all at once. Raises DatasetError where they cannot be read."""
    return list(scan(path))


def scan(path: Path) -> Iterator[DatasetRow]:
    """The rows of one split's file, a few of them in memory at a time. Raises DatasetError as ``read`` does."""
    for batch in _batches(path, None):
        for values in batch.to_pylist():
            *values["messages"], said = map(_unpacked, values["messages"])
            values["answer"], values["calls"] = said["content"], said.get("tool_calls", [])
            for name in _JSON.intersection(values):
                values[name] = orjson.loads(values[name])
            yield DatasetRow(**{name: value for name, value in values.items() if name in FIELDS})


def request_ids(path: Path) -> Iterator[str]:
    """The request ids in a split's file, or in a bundle's list of ids (JSON lines), in the file's order."""
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as file:
            yield from (str(json.loads(line)["request_id"]) for line in file)
        return
    for batch in _batches(path, ["request_id"]):
        yield from batch.column(0).to_pylist()


class Owner(NamedTuple):
    """Whose a row is: the aliases of a user and a conversation, or of a synthetic one the requests that it is like."""

    request_id: str
    user: str | None = None
    conversation: str | None = None
    shown: Sequence[str] = ()


def owners(path: Path) -> Iterator[Owner]:
    """Whose each row in a split's file is. Of one that an older Locum wrote (JSON lines) the id alone is known."""
    if path.suffix == ".jsonl":
        yield from map(Owner, request_ids(path))
        return
    for batch in _batches(path, ["request_id", "user", "conversation_id", "shown"]):
        yield from (Owner(*values) for values in zip(*(column.to_pylist() for column in batch.columns), strict=True))


def ids(path: Path) -> frozenset[str]:
    """The same, in no order."""
    return frozenset(request_ids(path))


def write(path: Path, rows: Iterable[DatasetRow], sha256: Any) -> int:
    """Writes rows as they come, and updates ``sha256`` with each row's canonical JSON: so the hash is of what the rows
    say, whichever Parquet library wrote them. Returns how many there were."""
    from pyarrow import parquet

    count, rows = 0, iter(rows)
    with parquet.ParquetWriter(path, _schema(), compression="zstd") as writer:
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            for row in batch:
                sha256.update(row.to_json() + b"\n")
            writer.write_table(_table(batch), row_group_size=ROWS_AT_ONCE)
            count += len(batch)
    return count


def _batches(path: Path, columns: list[str] | None) -> Iterator[Any]:
    from pyarrow import ArrowInvalid, parquet

    try:
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(ROWS_AT_ONCE, columns=columns)
    except (OSError, ArrowInvalid, KeyError) as e:
        raise DatasetError(f"the dataset's file {path} cannot be read: {e}; build the dataset again") from e


def _packed(turn: Turn) -> dict[str, str]:
    return {name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in turn.items()}


def _unpacked(turn: dict[str, str | None]) -> Turn:
    """Older files have no column for tools."""
    return {
        name: orjson.loads(value) if name == "tool_calls" else value
        for name, value in turn.items()
        if value is not None and name in _TURN
    }


def _table(rows: list[DatasetRow]) -> Any:
    import pyarrow as pa

    schema = _schema()
    columns = []
    for name in _COLUMNS:
        if name == "messages":
            values: list[Any] = [[_packed(turn) for turn in row.conversation] for row in rows]
        elif name in _JSON:
            values = [orjson.dumps(getattr(row, name)).decode() for row in rows]
        else:
            values = [getattr(row, name) for row in rows]
        columns.append(pa.array(values, schema.field(name).type))
    return pa.Table.from_arrays(columns, schema=schema)


@cache
def _schema() -> Any:
    import pyarrow as pa

    text = pa.string()
    other = {
        "created_at": pa.float64(), "weight": pa.float64(), "teacher_tokens": pa.int64(),
        "student_ok": pa.bool_(), "teacher_right": pa.bool_(), "streamed": pa.bool_(), "synthetic": pa.bool_(),
        "messages": pa.list_(pa.struct([(name, text) for name in _TURN])), "shown": pa.list_(text),
    }  # fmt: skip
    return pa.schema([(name, other.get(name, text)) for name in _COLUMNS])
