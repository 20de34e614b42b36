"""Paid calls within a budget: each is held for, written down before it is made and after, and settled.

Calls in flight cannot overspend, and a killed run pays for none twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from router.backends.base import Backend, WaitingTime
from router.backends.client import BackendClient, Completion, asked
from router.backends.faults import surely_unpaid
from router.backends.roster import output_limit
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
LIMITS = ("max_tokens", "max_completion_tokens")


class PurseEmpty(Exception):
    """The budget has no room for another call: an end, no error. It never leaves the package."""


class Purse:
    """``usd`` may be spent, of which ``spent`` was before."""

    def __init__(self, usd: Decimal, spent: Decimal = Decimal(0)) -> None:
        self.usd, self.spent = usd, spent
        self.held = Decimal(0)
        self._changed = asyncio.Condition()

    async def hold(self, usd: Decimal) -> None:
        """Holds so much; waits while only calls under way stand in the way of it.

        Raises:
            Spent: it does not fit, whatever those will have cost.
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


def most_usd(body: Mapping[str, Any], output_tokens: int, price: Price) -> Decimal:
    """What a call costs at most: no tokenizer makes more tokens of a text than it has bytes."""
    return cost_usd(Usage(input_tokens=len(orjson.dumps(body)) + _TOKENS_AROUND, output_tokens=output_tokens), price)


class Journal:
    """A file of JSON lines. ``spent`` is what the calls in it cost. ``lost`` are those that may have been paid and of
    which no answer is there: begun and never ended, or ended so that nobody knows. They count with what was held."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._ended: dict[str, Completion] = {}
        held: dict[str, Decimal] = {}
        lost: set[str] = set()
        self.spent = Decimal(0)
        for line in _read(path):
            if "held" in line:
                held[line["call"]] = Decimal(line["held"])
                continue
            held.pop(line["call"], None)
            self.spent += Decimal(line["usd"])
            if "message" in line:
                self._ended[line["call"]] = _completion(line)
            elif Decimal(line["usd"]):
                lost.add(line["call"])
        self.lost = frozenset(lost.union(held))
        self.spent += sum(held.values(), Decimal(0))
        self._file = path.open("ab", buffering=0)

    def known(self, call: str) -> Completion | None:
        """What the call said, where it was made before."""
        return self._ended.get(call)

    def begins(self, call: str, held: Decimal) -> None:
        self._write({"call": call, "held": str(held)})

    def ended(self, call: str, found: Completion, usd: Decimal) -> None:
        self._ended[call] = found
        usage = None if found.usage is None else asdict(found.usage)
        told = {"message": found.message, "finish_reason": found.finish_reason, "usage": usage}
        self._write({"call": call, "usd": str(usd), **told})

    def failed(self, call: str, usd: Decimal) -> None:
        """``usd`` is 0 where it surely cost nothing; such a call may be made again."""
        self._write({"call": call, "usd": str(usd)})

    def close(self) -> None:
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        """On a line of its own, whole: one that a kill cut off spoils no other."""
        self._file.write(b"\n" + json.dumps(line, ensure_ascii=False).encode())


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


def _completion(line: dict[str, Any]) -> Completion:
    usage = line["usage"]
    return Completion(
        line["message"], line["finish_reason"], None if usage is None else Usage(**usage), Decimal(line["usd"])
    )


class CallFailure(Exception):
    """A call has no answer: it failed, or was under way when an earlier run was killed (``lost``). It never leaves
    the package."""

    def __init__(self, why: str, *, lost: bool = False) -> None:
        super().__init__(why)
        self.lost = lost


class PaidCalls:
    """``calls`` and ``failed`` count what this run asked, not what it found in the journal."""

    def __init__(self, models: BackendClient, purse: Purse, journal: Journal) -> None:
        self._models, self._purse, self._journal = models, purse, journal
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self.calls = self.failed = 0
        self.last_error = ""

    async def ask(self, call: str, backend: Backend, body: Mapping[str, Any], room_tokens: int) -> Completion:
        """What the model says; a call of this name that was made before is not made again.

        Args:
            room_tokens: length that an answer may have, where ``body`` sets none itself.

        Raises:
            Spent: the budget has no room for it.
            Failed: there is no answer.
        """
        if (known := self._journal.known(call)) is not None:
            return known
        if call in self._journal.lost:
            raise CallFailure("it was under way when an earlier run ended", lost=True)
        own = next((body[name] for name in LIMITS if isinstance(body.get(name), int)), None)
        if own is None:
            body = {**body, **output_limit(backend, room_tokens)}
        assert backend.price is not None
        most = most_usd(body, room_tokens if own is None else own, backend.price)
        async with self._slots:
            await self._purse.hold(most)
            self._journal.begins(call, most)
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
