"""Has the teacher write requests of weak kinds and answer them, a few kinds at once, until there are enough."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

import orjson

from distiller.data.rows import DatasetRow
from distiller.data.shingles import fingerprint
from distiller.payments import CallFailure, PaidCalls, PurseEmpty
from distiller.synthesis.filters import LONGER, Novelty, RejectReason, is_whole
from distiller.synthesis.kinds import AnswerFormat, RequestKind
from distiller.synthesis.plan import SynthesisPlan
from distiller.synthesis.prompts import ASKED, drawn, to_answer, to_write, written
from router.backends.client import Completion
from router.errors import JudgeError
from router.judges.base import Means, ModelReply, TextEncoder
from router.judges.judge import Judges
from router.judges.pair import Pair, text
from router.policy.judges import Llm, ToolCalls
from router.policy.policy import Policy
from router.store.redaction import redact
from router.wire.rationale import asked_in, parted

WORKERS = 4
LEAST_ROOM_TOKENS = 1024
"""Room for what is short: models that think before they speak need some for that."""
BYTES_PER_TOKEN = 2
"""Fewer than in any usual text, so that answers have room enough."""
SPARE_TURNS = 2
"""How many times as often as would do if all were kept a kind is asked for."""
FEW_FAILURES, MOST_FAILED = 4, 0.2
"""Failed calls, and their share of all, beyond which it is the teacher that is broken."""


@dataclass(slots=True)
class KindProgress:
    """A kind, and what there is of it so far."""

    kind: RequestKind
    rows: list[DatasetRow] = field(default_factory=list)
    turn: int = 0

    @property
    def is_open(self) -> bool:
        most = SPARE_TURNS * ceil(self.kind.wanted / ASKED)
        return len(self.rows) < self.kind.wanted and self.turn < most


class Writer:
    """One run. ``out`` counts what was not kept; ``stopped`` says why it ended before all was there."""

    def __init__(
        self,
        policy: Policy,
        plan: SynthesisPlan,
        paid: PaidCalls,
        *,
        at: float,
        seed: int,
        encoder: Callable[[], TextEncoder | None],
        on_row: Callable[[int, int], None],
    ) -> None:
        """``at`` is the unix time that the rows bear. ``on_row`` is told how many rows of how many there are."""
        self._policy, self._plan, self._paid, self._at = policy, plan, paid, at
        self._seed, self._on_row = seed, on_row
        self._novelty = Novelty(plan.train, plan.measured)
        self.progress = [KindProgress(kind) for kind in plan.kinds]
        self.out: Counter[RejectReason] = Counter()
        self.stopped = ""

        async def complete(judge: Llm, body: Mapping[str, Any]) -> ModelReply:
            call = f"judge {hashlib.sha256(orjson.dumps(body)).hexdigest()[:24]}"
            return await paid.judge(call, plan.judging[judge.label], body)

        self._judges = Judges(policy.judge, Means(complete, encoder=encoder))
        for row in (*plan.train, *plan.measured):
            self._judges.learn(row.task, {"role": "assistant", "content": row.answer})

    async def run(self) -> None:
        """Writes for the kinds that the student fails at until they have enough, then for the thin ones; ``progress``
        has the rows."""
        for why in ("failing", "thin"):
            await self._finish(deque(p for p in self.progress if p.kind.why == why))

    async def _finish(self, queue: deque[KindProgress]) -> None:
        """Takes turns among the kinds until each has enough."""

        async def worker() -> None:
            while queue and not self.stopped:
                progress = queue.popleft()
                try:
                    await self._turn(progress)
                except PurseEmpty:
                    self.stopped = "the budget is spent"
                if progress.is_open:
                    queue.append(progress)
                self._check_failures()

        await asyncio.gather(*(worker() for _ in range(WORKERS)))

    def _check_failures(self) -> None:
        asked, failed = self._paid.calls, self._paid.failed
        if failed > max(FEW_FAILURES, MOST_FAILED * asked):
            self.stopped = f"{failed} of {asked} calls failed: {self._paid.last_error}"

    async def _turn(self, progress: KindProgress) -> None:
        """Asks once for more of the kind, and has all that is new in the reply answered. Raises Spent."""
        kind, turn = progress.kind, progress.turn
        progress.turn += 1
        draw = random.Random(f"{self._seed} {kind.name} {turn}")
        (form,) = draw.choices(kind.forms, weights=[len(f.shots) for f in kind.forms])
        shots = drawn(form, draw)
        longest = max(len(shot.messages[-1]["content"].encode()) for shot in form.shots)
        room = max(LEAST_ROOM_TOKENS, 2 * ASKED * longest // BYTES_PER_TOKEN)
        found = await self._asked(f"write {kind.name} {turn}", to_write(form, shots, turn), room)
        if found is None:
            return
        prompts = written(parted(text(found.message)).answer)
        if not prompts:
            self.out[RejectReason.UNREADABLE] += 1
        fresh = [row for prompt in prompts if (row := self._fresh(form, shots, prompt, LONGER * longest)) is not None]
        fresh = fresh[: kind.wanted - len(progress.rows)]
        ends = await asyncio.gather(*(self._answered(row, form) for row in fresh), return_exceptions=True)
        progress.rows += [row for row in ends if isinstance(row, DatasetRow)]
        self._on_row(sum(len(p.rows) for p in self.progress), sum(p.kind.wanted for p in self.progress))
        for error in ends:
            if isinstance(error, BaseException):
                raise error

    def _fresh(
        self, form: AnswerFormat, shots: Sequence[DatasetRow], prompt: str, most_bytes: int
    ) -> DatasetRow | None:
        """A row without an answer; None where the request is no new one."""
        if len(prompt.encode()) > most_bytes:
            self.out[RejectReason.TOO_LONG] += 1
            return None
        messages = to_answer(form, redact(prompt, self._policy.log.redact))
        row = DatasetRow(
            request_id="",
            conversation_id="",
            created_at=self._at,
            messages=messages,
            answer="",
            teacher=self._plan.teacher.label,
            rights=self._plan.right,
            task=form.task,
            options=dict(form.options),
            synthetic=True,
            shown=[shot.request_id for shot in shots],
        )
        if (copied := self._novelty.copies(row)) is not None:
            self.out[copied] += 1
            return None
        name = f"synthetic-{fingerprint(row.prompt).hex()}"
        return replace(row, request_id=name, conversation_id=name)

    async def _answered(self, row: DatasetRow, form: AnswerFormat) -> DatasetRow | None:
        """The row with an answer that may be learned from; None where there is none. Raises Spent."""
        body: dict[str, Any] = {**row.options, "messages": row.messages}
        longest = max(len(shot.answer.encode()) for shot in form.shots)
        room = max(LEAST_ROOM_TOKENS, 2 * longest // BYTES_PER_TOKEN)
        found = await self._asked(f"answer {row.request_id}", body, room)
        if found is None:
            return None
        said = parted(text(found.message), asked_in(row.messages))
        if said.mixed or not is_whole({**found.message, "content": said.answer}, found.finish_reason, row.options):
            self.out[RejectReason.BROKEN] += 1
            return None
        if not await self._steady(row, body, found, room):
            return None
        answer = redact(said.answer, self._policy.log.redact)
        return replace(row, answer=answer, teacher_tokens=found.usage.output_tokens if found.usage else 0)

    async def _steady(self, row: DatasetRow, body: Mapping[str, Any], found: Completion, room: int) -> bool:
        """Whether the teacher says the same again, as the policy's judge sees it (self-consistency: Wang et al. 2023).
        It is asked again at a temperature of 1, since at the client's it might only repeat itself."""
        if isinstance(self._policy.judge.for_task(row.task), ToolCalls):
            return True  # of text that judge says nothing
        second = await self._asked(f"again {row.request_id}", {**body, "temperature": 1.0}, room)
        if second is None:
            return False
        pair = Pair(second.message, found.message, body, row.task, row.request_id)
        try:
            verdict = await self._judges.verdict(pair)
        except JudgeError:
            self.out[RejectReason.UNJUDGED] += 1
            return False
        if not verdict.acceptable:
            self.out[RejectReason.UNSTEADY] += 1
        return bool(verdict.acceptable)

    async def _asked(self, call: str, body: Mapping[str, Any], room: int) -> Completion | None:
        try:
            return await self._paid.ask(call, self._plan.teacher, body, room)
        except CallFailure as e:
            self.out[RejectReason.LOST if e.lost else RejectReason.FAILED] += 1
            return None
