"""What a student is asked: the log's audited requests, a dataset's holdout, or a file of a user's own questions."""

from __future__ import annotations

import gzip
import hashlib
import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from distiller.data import files
from distiller.data.dataset import load
from distiller.data.rows import DatasetRow, row_of
from router.contracts.records import Record
from router.errors import DatasetError
from router.judges.judge import Judges
from router.policy.policy import Policy

ROLES = frozenset({"system", "user", "assistant"})


def from_log(records: Iterable[Record], policy: Policy, most: int) -> list[DatasetRow]:
    """The newest ``most`` audited requests with the teacher's answer, oldest first: a sample of the traffic that no
    student is ever trained on."""
    audited = (record for record in records if record.decision.audited)
    judges = Judges(policy.judge)
    rows = (row for record in audited if isinstance(row := row_of(record, policy, judges), DatasetRow))
    return heapq.nlargest(most, rows, key=lambda r: (r.created_at, r.request_id))[::-1]


def from_path(path: Path, most: int) -> list[DatasetRow]:
    """The last ``most`` questions of a dataset's folder (its holdout) or of a file in the ``messages`` form.

    Raises:
        DatasetError: it is none of these, or one of its lines is no question with an answer.
    """
    if path.is_dir():
        return files.read(load(path).holdout)[-most:]
    if not path.is_file():
        raise DatasetError(f"there is no {path}: give a dataset's folder, or a file of questions")
    return list(_questions(path))[-most:]


def _questions(path: Path) -> Iterator[DatasetRow]:
    """JSON lines, gzip or not: ``messages``, of which the last is the teacher's answer; ``task`` if there is one."""
    raw = path.read_bytes()
    lines = (gzip.decompress(raw) if path.suffix == ".gz" else raw).splitlines()
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _row(line, f"{path}, line {number}")


def _row(line: bytes, where: str) -> DatasetRow:
    try:
        values: Any = orjson.loads(line)
        messages = [{"role": m["role"], "content": m["content"]} for m in values["messages"]]
    except (orjson.JSONDecodeError, KeyError, TypeError) as e:
        raise DatasetError(
            f'{where}: a question is {{"messages": [..., {{"role": "assistant", "content": "the teacher\'s answer"}}]}}'
        ) from e
    said = [m for m in messages if m["role"] in ROLES and isinstance(m["content"], str)]
    if len(said) != len(messages) or len(said) < 2 or said[-1]["role"] != "assistant":
        raise DatasetError(f"{where}: 'messages' must be texts, the last of them the assistant's: the teacher's answer")
    name = hashlib.sha256(orjson.dumps(messages)).hexdigest()[:16]
    task = values.get("task")
    return DatasetRow(
        request_id=name,
        conversation_id=name,
        created_at=0.0,
        messages=messages[:-1],
        answer=messages[-1]["content"],
        teacher="given",
        rights="none",
        task=task if isinstance(task, str) else None,
    )
