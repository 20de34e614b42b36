"""The responses that clients asked to be kept: a SQLite file, which all of a proxy's processes share.

What is kept is what the next turn must say again, so it is kept as it was said; the records beside it
are redacted, this is not. A response is its maker's: whoever comes with another key does not find it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import orjson
import structlog

from router.api.responses.items import Item
from router.errors import StoreError
from router.store.connection import OwnedFile
from router.store.supported_time import SCHEMA as TIME_SCHEMA
from router.store.supported_time import SupportedTime, machine_uptime

BUSY_SECONDS = 5.0
PRUNE_SECONDS = 600.0
MOST_BYTES = 32 * 2**20
"""Of what was said before: a hundred bytes may ask for it, and all is read."""
PRUNE_ROWS = 500
VERSION = 1

SCHEMA = f"""{TIME_SCHEMA}
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    previous TEXT,
    policy TEXT NOT NULL,
    conversation TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    input BLOB NOT NULL,
    output BLOB NOT NULL,
    response BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS responses_by_end ON responses (expires_at);
"""
ADD = "INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
GET = "SELECT input, output, response FROM responses WHERE id = ? AND owner = ? AND expires_at > ?"
CHAIN = """
WITH RECURSIVE chain (id, previous, conversation, input, output, depth, size) AS (
    SELECT id, previous, conversation, input, output, 0, length(input) + length(output) FROM responses
    WHERE id = :id AND owner = :owner AND expires_at > :now
    UNION ALL
    SELECT r.id, r.previous, r.conversation, r.input, r.output, depth + 1, size + length(r.input) + length(r.output)
    FROM responses r JOIN chain ON r.id = chain.previous
    WHERE r.owner = :owner AND r.expires_at > :now AND size <= :most
)
SELECT previous, conversation, input, output FROM chain ORDER BY depth DESC
"""
DELETE = "DELETE FROM responses WHERE id = ? AND owner = ?"
NEWEST = "SELECT max(created_at) FROM responses"
PRUNE = "DELETE FROM responses WHERE id IN (SELECT id FROM responses WHERE expires_at <= ? LIMIT ?)"

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """One response with what it was asked, in ``size`` bytes."""

    input: list[Item]
    response: dict[str, Any]
    size: int


@dataclass(frozen=True, slots=True)
class History:
    """All that was said up to the end of a response, in ``size`` bytes, and the conversation that it belongs to."""

    conversation: str
    items: list[Item]
    size: int


@dataclass(frozen=True, slots=True)
class Terms:
    """Under what a response is kept: ``owner`` is who may see it."""

    owner: str
    policy: str
    conversation: str
    seconds: float


class ResponseStore(Protocol):
    """Where responses are kept, as the surface asks it."""

    async def put(self, response: dict[str, Any], given: list[Item], terms: Terms) -> bool:
        """Keeps a response and its input. Once it is true, every process finds it; false where it could not be."""
        ...

    async def get(self, response_id: str, owner: str) -> KeptResponse | None: ...

    async def history(self, response_id: str, owner: str) -> History | None:
        """None where the response, or one that it goes on from, is not kept (any more), or all is longer than
        ``MOST_BYTES``."""
        ...

    async def delete(self, response_id: str, owner: str) -> bool:
        """Whether there was one to delete."""
        ...


class KeptResponses:
    """In a SQLite file, on one thread of its own; ``clock`` tells the unix time, by which what is past its
    end is deleted as far as ``uptime`` supports it (``router.store.supported_time``)."""

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.time, uptime: Callable[[], float] = machine_uptime
    ) -> None:
        self._path, self._clock, self._time = path, clock, SupportedTime(NEWEST, clock, uptime)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="locum-responses")
        self._file: OwnedFile
        self._next_prune = 0.0

    def open(self) -> None:
        """Raises StoreError where the file cannot be opened, or a newer version wrote it."""
        self._file = OwnedFile(
            self._path,
            "kept responses",
            version=VERSION,
            schema=SCHEMA,
            busy_seconds=BUSY_SECONDS,
            pragmas=["secure_delete = ON"],  # what is deleted is a user's text
        )

    def close(self) -> None:
        """Ends what is under way, and closes. Call it after ``open``."""
        self._thread.submit(self._file.close)
        self._thread.shutdown()

    async def put(self, response: dict[str, Any], given: list[Item], terms: Terms) -> bool:
        """Keeps a response and its input. Once it is true, every process finds it. A disk that refuses costs
        the client the next turn, not this answer: it is logged, and false."""
        now, rest = self._clock(), {k: v for k, v in response.items() if k != "output"}
        said_by = (response["id"], terms.owner, response["previous_response_id"], terms.policy, terms.conversation)
        row = (*said_by, now, now + terms.seconds)
        try:
            await self._do(lambda: self._add((*row, *map(orjson.dumps, (given, response["output"], rest)))))
        except StoreError as e:
            log.error("response_not_kept", response=response["id"], error=str(e))
            return False
        return True

    async def get(self, response_id: str, owner: str) -> KeptResponse | None:
        rows = await self._rows(GET, (response_id, owner, self._clock()))
        if not rows:
            return None
        given, output, response = map(orjson.loads, rows[0])
        return KeptResponse(given, response | {"output": output}, sum(map(len, rows[0])))

    async def history(self, response_id: str, owner: str) -> History | None:
        """None where the response, or one that it goes on from, is not kept (any more), or all is longer than
        ``MOST_BYTES``."""
        values = {"id": response_id, "owner": owner, "now": self._clock(), "most": MOST_BYTES}
        return await self._do(lambda: self._history(values))

    async def delete(self, response_id: str, owner: str) -> bool:
        """Whether there was one to delete."""
        return await self._do(lambda: self._file.current().execute(DELETE, (response_id, owner)).rowcount == 1)

    async def _rows(self, query: str, values: Any) -> list[Any]:
        return await self._do(lambda: self._file.current().execute(query, values).fetchall())

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as e:
            raise StoreError(f"the kept responses cannot be read or written: {e}") from e

    def _history(self, values: Mapping[str, Any]) -> History | None:
        rows = self._file.current().execute(CHAIN, values).fetchall()
        if not rows or rows[0][0] is not None:
            return None
        parts = [part for *_, given, output in rows for part in (given, output)]
        items = [item for part in parts for item in orjson.loads(part)]
        return History(rows[-1][1], items, sum(map(len, parts)))

    def _add(self, row: tuple[Any, ...]) -> None:
        db = self._file.current()
        if (now := time.monotonic()) >= self._next_prune:
            self._time.look(db)  # before it is added, which the clock dated
            more = db.execute(PRUNE, (self._time.now, PRUNE_ROWS)).rowcount == PRUNE_ROWS
            self._time.keep(db)
            self._next_prune = now + (0.0 if more else PRUNE_SECONDS)
        db.execute(ADD, row)
