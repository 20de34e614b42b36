"""What becomes of a request whose model server fails: what the client got, and what was recorded.

Each kind of fault (``benchmarks.fault_kinds``) is played by a server whose bytes are scripted, asked whole and
streamed, as the student, as the teacher, and as both, through a real ``locum serve``. Each cell says what should come:
a student's failure is answered by the teacher; a teacher's, before a word has left, by the student standing by; a
request's own fault is told in the server's words, asked once; what breaks in the middle ends in an error event, is
recorded as a failure and never trained on.

    python -m benchmarks.faults --out benchmarks/results/faults.json    # everything, about three minutes
    python -m benchmarks.faults --only "NaN logprobs"

The exit status is 1 where a cell is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from benchmarks.fault_kinds import DOWN, HEAVY, KINDS, LONG, Fault, Kind
from benchmarks.harness import KindsParser, conditions, running, write_result
from benchmarks.scripted import TEXT, Asked, Piece, Row, ScriptedServer, healthy
from distiller.data.rows import Skip, row_of
from distiller.data.selection import fault as known_fault
from router.contracts.records import Record
from router.judges.judge import Judges
from router.policy.policy import Policy
from router.store.access import open_readonly

STUDENT, TEACHER, BOTH = WHO = ("student", "teacher", "both")
SILENCE_SECONDS, PLENTY_SECONDS = 2.0, 45.0
"""How long a server has that never answers, and one that does."""
PATIENCE_SECONDS = 120.0
AT_ONCE = 8
A_PROXY = 90
"""Cells that share a proxy: a policy costs a little even where nobody asks."""
HOLD_TOKENS = 2
COMMITTED = "The quick"
PROMPT = {"messages": [{"role": "user", "content": "What does the fox do?"}]}


@dataclass(frozen=True, eq=False)
class Cell:
    """One kind, asked whole or streamed, of the student, the teacher or both."""

    kind: Kind
    streamed: bool
    who: str
    number: int

    @property
    def name(self) -> str:
        """Its policy's name, alias and part of its servers' paths: so that no cell's circuit is another's."""
        return f"c{self.number}-{'streamed' if self.streamed else 'whole'}-{self.who}"

    @property
    def fault(self) -> Fault:
        return self.kind.of(self.streamed)

    def policy(self, servers: dict[str, str]) -> Row:
        seconds = SILENCE_SECONDS if self.kind.statuses == (504,) else PLENTY_SECONDS

        def at(tier: str) -> str:
            broken = self.who in (tier, BOTH)
            which = "healthy" if not broken else "down" if self.kind.name == DOWN else "broken"
            return f"{servers[which]}/{self.name}-{tier}/v1"

        return {
            "name": self.name,
            "aliases": [self.name],
            "student": {
                "model": "student", "url": at(STUDENT), "usd_per_million": {"input": 0.02, "output": 0.06},
                "timeout_seconds": seconds, "unfit_for": {"images": False, "tools": False},
            },
            "teacher": {
                "model": "teacher", "url": at(TEACHER), "usd_per_million": {"input": 1, "output": 3},
                "timeout_seconds": seconds, "training_rights": "allowed",
            },
            "objective": {"student_share": 0.0 if self.who == TEACHER else 1.0},
            "audit": {"rate": 0, "warmup_rate": 0, "explore": 0},
            "accept": {"hold_tokens": HOLD_TOKENS},
        }  # fmt: skip


@dataclass
class Got:
    """What the client got. ``cut``: the connection ended before the answer did."""

    status: int = 0
    tier: str | None = None
    reason: str | None = None
    code: str | None = None
    message: str = ""
    text: str = ""
    calls: int = 0
    done: bool = False
    cut: bool = False
    request_id: str = ""
    asked: int = 0


@dataclass
class Kept:
    """What was recorded."""

    status: int
    tier: str | None
    fallback: str | None
    answers: list[str] = field(default_factory=list)
    trainable: bool = False
    usd: float = 0.0


def cells(kinds: Iterable[Kind]) -> list[Cell]:
    every = [(kind, streamed, who) for kind in kinds for streamed in (False, True) for who in WHO]
    return [Cell(kind, streamed, who, n) for n, (kind, streamed, who) in enumerate(every)]


def measure(wanted: Sequence[Cell], folder: Path) -> list[Row]:
    """Plays the cells against one proxy; a row for each."""
    known = {cell.name: cell for cell in wanted}

    def broken(asked: Asked) -> Iterable[Piece]:
        return known[asked.name.rpartition("-")[0]].kind.script(asked)

    models = ("student", "teacher")
    with ExitStack() as stack:
        servers = {
            "healthy": stack.enter_context(ScriptedServer(healthy, models)),
            "broken": stack.enter_context(ScriptedServer(broken, models)),
            "down": stack.enter_context(ScriptedServer(healthy, models)),
        }
        policies = [cell.policy({name: server.url for name, server in servers.items()}) for cell in wanted]
        locum = stack.enter_context(running(folder, *policies, command="serve"))
        servers["down"].stop()
        answers = asyncio.run(_ask_all(wanted, locum.url))
        for cell, got in zip(wanted, answers, strict=True):
            tier = STUDENT if cell.who == STUDENT else TEACHER
            got.asked = servers["broken"].asked.get(f"{cell.name}-{tier}", 0)
    kept = recorded({got.request_id: policy for got, policy in zip(answers, policies, strict=True)}, locum.settings)
    return [_row(cell, got, kept.get(got.request_id)) for cell, got in zip(wanted, answers, strict=True)]


def recorded(policies: dict[str, Row], settings: Any) -> dict[str, Kept]:
    """What is on record, by request id. A record that cannot be read is none."""
    found = {}
    with closing(open_readonly(settings)) as records:
        for _, record in records.records():
            if record.request_id in policies:
                found[record.request_id] = _kept(record, Policy.model_validate(policies[record.request_id]))
    return found


def _kept(record: Record, policy: Policy) -> Kept:
    judges = Judges(policy.judge)
    row = row_of(record, policy, judges)
    return Kept(
        record.status,
        record.tier,
        record.fallback,
        [f"{a.tier} {a.kind}" for a in record.answers],
        not isinstance(row, Skip) and row.trainable and known_fault(record, judges) is None,
        float(record.cost_usd),
    )


async def _ask_all(wanted: Sequence[Cell], url: str) -> list[Got]:
    several = asyncio.Semaphore(AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, read_bufsize=2**20) as session:

        async def ask(cell: Cell) -> Got:
            async with several:
                return await _ask(session, cell, url)

        light = [cell for cell in wanted if cell.kind is not HEAVY]
        found = dict(zip(light, await asyncio.gather(*map(ask, light)), strict=True))
        for cell in wanted:  # what keeps everybody busy has no company
            if cell not in found:
                found[cell] = await _ask(session, cell, url)
        return [found[cell] for cell in wanted]


async def _ask(session: aiohttp.ClientSession, cell: Cell, url: str) -> Got:
    body = {"model": cell.name, **PROMPT, **cell.kind.fields, "stream": cell.streamed}
    got = Got()
    try:
        async with session.post(f"{url}/chat/completions", json=body) as answer:
            got.status = answer.status
            told = answer.headers
            got.tier, got.reason = told.get("x-locum-tier"), told.get("x-locum-reason")
            got.request_id = told.get("x-locum-request-id", "")
            content = bytearray()
            async for piece in answer.content.iter_any():
                content += piece
    except (aiohttp.ClientError, TimeoutError):
        got.cut = True
    if not got.cut:
        _read(got, bytes(content), told.get("content-type", ""))
    return got


def _read(got: Got, content: bytes, kind: str) -> None:
    text = content.decode("utf-8", "replace")
    if "event-stream" not in kind:
        _add(got, text, "message")
        return
    for line in text.split("\n"):
        if line.strip() == "data: [DONE]":
            got.done = True
        elif line.startswith("data:"):
            _add(got, line[5:], "delta")


def _add(got: Got, text: str, part: str) -> None:
    """Adds a chunk, or the whole answer."""
    try:
        found = json.loads(text)
    except ValueError:
        got.code = "unreadable"
        return
    if error := found.get("error"):
        got.code, got.message = str(error.get("code") or error.get("type")), str(error.get("message"))
    for choice in found.get("choices") or []:
        said = choice.get(part) or {}
        content = said.get("content")
        if isinstance(content, list):
            content = "".join(str(p.get("text", "")) for p in content)
        got.text += content or ""
        got.calls += len(said.get("tool_calls") or [])
        if choice.get("finish_reason") == "error" and got.code is None:
            got.code = "finish_reason error"


def wrong(cell: Cell, got: Got, kept: Kept | None) -> list[str]:
    """What is not as it should be; nothing where the cell is right."""
    if got.cut:
        return ["the answer never ended"]
    if kept is None:
        return ["no readable record"]
    judge = {Fault.BACKEND: _elsewhere, Fault.MIDWAY: _midway, Fault.REQUEST: _told, Fault.NONE: _answered}
    found = judge[cell.fault](cell, got, kept)
    found["a whole cost"] = kept.usd >= 0
    found["a record of that status"] = kept.status == got.status or cell.fault is Fault.MIDWAY
    return [what for what, right in found.items() if not right]


def _good(cell: Cell, got: Got, tier: str) -> dict[str, bool]:
    says = "tools" in cell.kind.fields or got.text.startswith((COMMITTED, LONG[:99]))
    return {
        "status 200": got.status == 200,
        f"the {tier}'s answer": got.tier == tier,
        "the answer's words": says and bool(got.text or got.calls),
        "no error": got.code is None,
        "[DONE]": got.done or not cell.streamed,
    }


def _elsewhere(cell: Cell, got: Got, kept: Kept) -> dict[str, bool]:
    """Another tier answers; where both failed, an error."""
    if cell.who == BOTH:
        return {
            f"status {' or '.join(map(str, cell.kind.statuses))}": got.status in cell.kind.statuses,
            "an error in OpenAI's shape": got.code not in (None, "unreadable"),
            "no word of the account": "credit" not in got.message.lower(),
            "nothing to train on": not kept.trainable,
        }
    other = TEACHER if cell.who == STUDENT else STUDENT
    refused = cell.who == STUDENT and got.reason == "capability"  # a refusal of the student's is no failure
    return _good(cell, got, other) | {
        "recorded as a fallback": kept.fallback is not None or refused,
        "the answer recorded": kept.tier == other and f"{other} served" in kept.answers,
        "trained on only where no failure moved it": kept.trainable == refused,
    }


def _midway(cell: Cell, got: Got, kept: Kept) -> dict[str, bool]:
    """Words, then an error event."""
    tier = TEACHER if cell.who == TEACHER else STUDENT
    return {
        "status 200": got.status == 200,
        f"the {tier}'s words": got.tier == tier and got.text.startswith(COMMITTED),
        "an error event": got.code not in (None, "unreadable"),
        "recorded as a failure": kept.status != 200,
        "what was said recorded": f"{tier} served" in kept.answers,
        "nothing to train on": not kept.trainable,
    }


def _told(cell: Cell, got: Got, kept: Kept) -> dict[str, bool]:
    """The server's own words; a student's refusal is the teacher's to confirm."""
    if cell.who == STUDENT:
        return _good(cell, got, TEACHER) | {"reason capability": got.reason == "capability"}
    return {
        f"status {cell.kind.statuses[0]}": got.status in cell.kind.statuses,
        "the server's words": cell.kind.says in got.message,
        "asked once": got.asked == 1,
        "no fallback": kept.fallback is None,
        "nothing to train on": not kept.trainable,
    }


def _answered(cell: Cell, got: Got, kept: Kept) -> dict[str, bool]:
    """The answer, by whom it was asked of."""
    tier = TEACHER if cell.who == TEACHER else STUDENT
    both_calls = "tools" not in cell.kind.fields or got.calls == 2 or got.text.startswith(TEXT)
    return _good(cell, got, tier) | {
        "no fallback": kept.fallback is None,
        "the answer recorded": kept.tier == tier and f"{tier} served" in kept.answers,
        "both calls": both_calls,
    }


def _row(cell: Cell, got: Got, kept: Kept | None) -> Row:
    shown = {k: v for k, v in asdict(got).items() if k not in ("request_id", "message", "text", "cut")}
    shown["text"] = len(got.text)
    faults = wrong(cell, got, kept)
    return {
        "name": "locum",
        "kind": cell.kind.name,
        "asked": "streamed" if cell.streamed else "whole",
        "broken": cell.who,
        "should": cell.fault.value,
        "got": shown,
        "recorded": asdict(kept) if kept else None,
        "right": not faults,
        "wrong": faults,
    }


def table(rows: Sequence[Row]) -> Table:
    shown = Table("kind", "asked", "broken", "the client got", "recorded", "", title="Faults of model servers")
    for row in rows:
        got, kept = row["got"], row["recorded"] or {}
        said = [str(got["status"]), got["tier"], got["reason"], f"{got['text']} characters" if got["text"] else None]
        said += [f"{got['calls']} calls" if got["calls"] else None, got["code"], "[DONE]" if got["done"] else None]
        notes = [str(kept.get("status")), kept.get("tier"), kept.get("fallback"), "+".join(kept.get("answers", []))]
        notes.append("trainable" if kept.get("trainable") else None)
        verdict = "[green]right[/]" if row["right"] else f"[red]wrong: not {'; not '.join(row['wrong'])}[/]"
        texts = (" ".join(s for s in part if s).replace("[", r"\[") for part in (said, notes))
        shown.add_row(row["kind"].replace("[", r"\["), row["asked"], row["broken"], *texts, verdict)
    return shown


def options(given: Sequence[str] | None = None) -> argparse.Namespace:
    return KindsParser("faults", __doc__, KINDS).chosen(given)


def main() -> int:
    args, rows = options(), []
    wanted = cells(args.kinds)
    for first in range(0, len(wanted), A_PROXY):
        with tempfile.TemporaryDirectory(prefix="locum-faults-") as folder:
            rows += measure(wanted[first : first + A_PROXY], Path(folder))
    Console(width=200).print(table(rows))
    right = sum(r["right"] for r in rows)
    print(f"{right} of {len(rows)} cells are right, of {len(args.kinds)} kinds")
    if args.out:
        where = conditions(silence_seconds=SILENCE_SECONDS, kinds=len(args.kinds), cells=len(rows), right=right)
        write_result(args.out, "faults", where, rows)
    return 0 if right == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
