"""Paid calls within a budget: each is held for, written down before it is made and after, and settled.

Calls in flight cannot overspend, and a killed run pays for none twice, one by one or in batches.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from router.backends.base import Backend, WaitingTime
from router.backends.client import BackendClient, Completion, asked
from router.backends.faults import surely_unpaid
from router.backends.roster import output_limit
from router.contracts.files import write_atomically
from router.contracts.prices import Price
from router.contracts.records import Usage
from router.errors import JudgeError, UpstreamError, UpstreamRefused
from router.judges.base import ModelReply
from router.judges.pair import text
from router.pricing import cost_usd

_TOKENS_AROUND = 64
"""What a chat template adds at most to all messages together, beside what each one's JSON takes."""
IN_FLIGHT = 8
JUDGE_TOKENS = 1024
"""Room for a judge's word where the policy's ``options`` give it none."""
FORGOTTEN = "forgotten"
"""The name of what was paid for calls that are known no more."""
LIMITS = ("max_tokens", "max_completion_tokens")


class PurseEmpty(Exception):
    """The budget has no room for another call: an end, no error. It never leaves who asked."""


class Purse:
    """``usd`` may be spent, of which ``spent`` was before."""

    def __init__(self, usd: Decimal, spent: Decimal = Decimal(0)) -> None:
        self.usd, self.spent = usd, spent
        self.held = Decimal(0)
        self._changed = asyncio.Condition()

    @property
    def room(self) -> Decimal:
        """What is neither spent nor held."""
        return self.usd - self.spent - self.held

    async def hold(self, usd: Decimal) -> None:
        """Holds so much; waits while only calls under way stand in the way of it.

        Raises:
            PurseEmpty: it does not fit, whatever those will have cost.
        """
        async with self._changed:
            while self.spent + self.held + usd > self.usd:
                if self.spent + usd > self.usd or not self.held:
                    raise PurseEmpty
                await self._changed.wait()
            self.held += usd

    async def settle(self, held: Decimal, spent: Decimal) -> None:
        """Gives back what was held, and books what was spent."""
        async with self._changed:
            self.held -= held
            self.spent += spent
            self._changed.notify_all()


def most_usd(body: Mapping[str, Any], output_tokens: int, price: Price, tier: str | None = None) -> Decimal:
    """What a call costs at most, at a service tier: no tokenizer makes more tokens of a text than it has bytes."""
    read = len(orjson.dumps(body)) + _TOKENS_AROUND
    return cost_usd(Usage(input_tokens=read, output_tokens=output_tokens, service_tier=tier), price)


@dataclass(slots=True)
class PendingBatch:
    """Calls that were handed over together and of which nobody has the answers yet: what is held for each. ``backend``
    is whom they are for, ``batch_id`` the provider's own name for it, None where nobody knows whether it has that."""

    name: str
    backend: str
    held: dict[str, Decimal]
    batch_id: str | None = None


class Journal:
    """A file of JSON lines. ``spent`` is what the calls in it cost. ``lost`` are those that may have been paid and of
    which no answer is there: begun and never ended, or ended so that nobody knows. They count with what was held, and
    so do those of ``batches``, whose answers may still come. A call may be ``of`` a request, with which it goes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._ended: dict[str, Completion] = {}
        self.batches: dict[str, PendingBatch] = {}
        held: dict[str, Decimal] = {}
        lost: set[str] = set()
        self.spent = Decimal(0)
        for line in _read(path):
            if "batch" in line:
                self._batch(line)
            elif "held" in line:
                held[line["call"]] = Decimal(line["held"])
            else:
                self._take(line, held, lost)
        self.lost = frozenset(lost.union(held))
        waiting = (batch.held.values() for batch in self.batches.values())
        self.spent += sum(chain(held.values(), *waiting), Decimal(0))
        self._file = path.open("ab", buffering=0)

    def _take(self, line: Mapping[str, Any], held: dict[str, Decimal], lost: set[str]) -> None:
        """An ended call."""
        held.pop(line["call"], None)
        for batch in self.batches.values():
            batch.held.pop(line["call"], None)
        self.spent += Decimal(line["usd"])
        if "message" in line:
            self._ended[line["call"]] = _completion(line)
        elif Decimal(line["usd"]):
            lost.add(line["call"])

    def _batch(self, line: Mapping[str, Any]) -> None:
        name = line["batch"]
        if "held" in line:
            self.batches[name] = PendingBatch(
                name, line["backend"], {call: Decimal(usd) for call, usd in line["held"].items()}
            )
        elif line.get("over"):
            self.batches.pop(name, None)
        elif name in self.batches:
            self.batches[name].batch_id = line["id"]

    def known(self, call: str) -> Completion | None:
        """What the call said, where it was made before."""
        return self._ended.get(call)

    def begins(self, call: str, held: Decimal, of: str | None = None) -> None:
        self._write({"call": call, "held": str(held), **({"of": of} if of else {})})

    def batch_begins(self, batch: PendingBatch, of: Mapping[str, str]) -> None:
        """Before it is handed over. ``of``: the request that each call is of."""
        self.batches[batch.name] = batch
        held = {call: str(usd) for call, usd in batch.held.items()}
        self._write({"batch": batch.name, "backend": batch.backend, "held": held, "of": dict(of)})

    def batch_made(self, batch: PendingBatch, batch_id: str) -> None:
        batch.batch_id = batch_id
        self._write({"batch": batch.name, "id": batch_id})

    def batch_over(self, batch: PendingBatch) -> None:
        """No answer of it will come any more; what it still held was not paid."""
        self.batches.pop(batch.name, None)
        self._write({"batch": batch.name, "over": True})

    def ended(self, call: str, found: Completion, usd: Decimal) -> None:
        self._ended[call] = found
        usage = None if found.usage is None else asdict(found.usage)
        told = {"message": found.message, "finish_reason": found.finish_reason, "usage": usage, "at": time.time()}
        self._write({"call": call, "usd": str(usd), **told})

    def failed(self, call: str, usd: Decimal) -> None:
        """``usd`` is 0 where it surely cost nothing; such a call may be made again."""
        self._write({"call": call, "usd": str(usd)})

    def close(self) -> None:
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        """On a line of its own, whole: one that a kill cut off spoils no other."""
        self._file.write(b"\n" + json.dumps(line, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass"))


def forget(path: Path, requests: Collection[str] = (), *, before: float = 0.0) -> None:
    """Takes what was called for these requests, and what ended ``before`` (unix time), out of a journal that nobody
    writes to; what it cost stays counted."""
    lines = _read(path)
    gone = {line["call"] for line in lines if "call" in line and line.get("of") in requests}
    gone |= {line["call"] for line in lines if line.get("at", before) < before and "message" in line}
    gone |= {call for line in lines if "batch" in line for call, of in line.get("of", {}).items() if of in requests}
    if not gone:
        return
    usd, ended = Decimal(0), {line.get("call") for line in lines if "usd" in line}
    for line in lines:
        if line.get("call") in gone:
            usd += Decimal(line["usd"]) if "usd" in line else Decimal(0) if line["call"] in ended else _held(line)
    kept = [_without(line, gone) for line in lines if line.get("call") not in gone]
    kept.append({"call": FORGOTTEN, "usd": str(usd)})
    write_atomically(path, b"".join(b"\n" + json.dumps(line, ensure_ascii=False).encode() for line in kept))


def _held(line: Mapping[str, Any]) -> Decimal:
    return Decimal(line.get("held", 0))


def _without(line: dict[str, Any], calls: Collection[str]) -> dict[str, Any]:
    """A batch's line without these calls: of what it has still to tell their answers are passed over."""
    if "batch" not in line or "held" not in line:
        return line
    parts = {name: {c: v for c, v in line[name].items() if c not in calls} for name in ("held", "of")}
    return {**line, **parts}


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = []
    for line in path.read_bytes().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def _completion(line: Mapping[str, Any]) -> Completion:
    usage = None if line["usage"] is None else Usage(**line["usage"])
    if usage is not None and usage.billed_usd is not None:
        usage.billed_usd = Decimal(usage.billed_usd)
    return Completion(line["message"], line["finish_reason"], usage, Decimal(line["usd"]))


class CallFailure(Exception):
    """A call has no answer: it failed, or was under way when an earlier run was killed (``lost``). It never leaves
    who asked."""

    def __init__(self, why: str, *, lost: bool = False) -> None:
        super().__init__(why)
        self.lost = lost


def bounded(backend: Backend, body: Mapping[str, Any], room_tokens: int) -> tuple[Mapping[str, Any], int]:
    """(the body with a limit on the answer, that limit in tokens): its own where it sets one, else ``room_tokens``."""
    own = next((body[name] for name in LIMITS if isinstance(body.get(name), int)), None)
    return (body, own) if own is not None else ({**body, **output_limit(backend, room_tokens)}, room_tokens)


class PaidCalls:
    """``calls`` and ``failed`` count what this run asked, not what it found in the journal."""

    def __init__(self, models: BackendClient, purse: Purse, journal: Journal, in_flight: int = IN_FLIGHT) -> None:
        self._models, self._purse, self._journal = models, purse, journal
        self._slots = asyncio.Semaphore(in_flight)
        self.calls = self.failed = 0
        self.last_error = ""

    async def ask(
        self, call: str, backend: Backend, body: Mapping[str, Any], room_tokens: int, *, of: str | None = None
    ) -> Completion:
        """What the model says; a call of this name that was made before is not made again.

        Args:
            room_tokens: length that an answer may have, where ``body`` sets none itself.
            of: the request that it is made for, if any, with which it is forgotten.

        Raises:
            PurseEmpty: the budget has no room for it.
            CallFailure: there is no answer.
        """
        if (known := self._journal.known(call)) is not None:
            return known
        if call in self._journal.lost:
            raise CallFailure("it was under way when an earlier run ended", lost=True)
        assert backend.price is not None
        body, room = bounded(backend, body, room_tokens)
        most = most_usd(body, room, backend.price)
        async with self._slots:
            await self._purse.hold(most)
            self._journal.begins(call, most, of)
            return await self._made(call, backend, body, most)

    async def _made(self, call: str, backend: Backend, body: Mapping[str, Any], most: Decimal) -> Completion:
        spent = most  # whatever ends this call, unless it is known better
        self.calls += 1
        try:
            found = await asked(self._models, backend, body, WaitingTime())
            spent = most if found.usd is None else found.usd
            self._journal.ended(call, found, spent)
        except (UpstreamError, UpstreamRefused) as e:
            spent = Decimal(0) if surely_unpaid(e) else most
            self._journal.failed(call, spent)
            self.failed += 1
            self.last_error = str(e)
            raise CallFailure(str(e)) from e
        finally:
            await self._purse.settle(most, spent)
        return found

    async def judge(self, call: str, backend: Backend, body: Mapping[str, Any]) -> ModelReply:
        """As a judge's ``complete``. Raises JudgeError where it does not answer, and Spent."""
        try:
            found = await self.ask(call, backend, body, JUDGE_TOKENS)
        except CallFailure as e:
            raise JudgeError(f"the judge was not answered: {e}") from e
        return ModelReply(text(found.message), found.usd or Decimal(0))
