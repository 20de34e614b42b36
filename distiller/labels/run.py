"""What a round has answered again: who is asked, within which budget, and what is learnt from.

Every call stands in the policy's ``labels.jsonl`` (``<home>/work/<policy>``), over all rounds: a prompt that the same
label teacher answered once is never paid for again, and a killed round goes on where it was.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from distiller.data.rows import DatasetRow
from distiller.home import remember
from distiller.labels.agreement import WHOLE, AgreementRate, LabelledPair, agreement, paid_by
from distiller.labels.batch import BatchedCalls
from distiller.labels.calls import CallFailures, LabelCall, ask_each, call_of, label_backend, listed_rights
from distiller.labels.filters import ClosedAnswers, LabelFault, LabelFilter
from distiller.payments import Journal, PaidCalls, Purse, forget
from distiller.progress import Progress
from router.backends.base import Backend
from router.backends.batches import BatchesMissing, BatchWire
from router.backends.client import careful
from router.contracts.files import write_atomically
from router.contracts.records import Rights
from router.contracts.rounds import LABELS, label_spending
from router.judges.base import Means
from router.judges.judge import Judges
from router.judges.models import judge_backends
from router.policy.distillation import LabelTeacher
from router.policy.policy import Policy
from router.scoring.text.encoder import Encoder
from router.settings import Settings
from router.wire.chat import Dialect

CALLS, BATCHES = "labels.jsonl", "labels"
"""The journal of calls, and the folder of what batches hand over."""
DAY_SECONDS = 86_400
LABELLED = "labelled.jsonl"
"""In a round's folder: the rows with the label teacher's answers."""


@dataclass(frozen=True, slots=True)
class LabelReport:
    """What a round had answered. Of ``wanted`` prompts ``rows`` have an answer that is learnt from; ``out`` are those
    of the others that were asked, by reason; ``stopped`` says why some were not. ``cost_usd`` is what this round and
    runs cut off before it paid; ``agreement`` compares with the served teacher, all first, then slice by slice."""

    run: str
    teacher: str
    served: str
    place: str
    wanted: int
    rows: int
    out: dict[str, int]
    cost_usd: str
    stopped: str
    agreement: list[dict[str, Any]]

    @property
    def words(self) -> str:
        """In a sentence, for a round's reasons."""
        said = f"{self.teacher} answered {self.rows} of {self.wanted} prompts so that they are learnt from"
        if self.agreement and self.agreement[0]["name"] == WHOLE and self.agreement[0]["n"]:
            whole = self.agreement[0]
            said += (
                f"; it agrees with {self.served} in {whole['share']:.1%} ({whole['low']:.1%} to {whole['high']:.1%} by "
                f"{whole['n']}); what it never gets right no student learns from it"
            )
        if self.out:
            said += "; left out: " + ", ".join(f"{why} {n}" for why, n in self.out.items())
        return f"{said}; {self.stopped}" if self.stopped else said


def label(
    policy: Policy,
    settings: Settings,
    env: Mapping[str, str],
    wanted: Sequence[DatasetRow],
    folder: Path,
    *,
    encoder: Callable[[], Encoder | None],
    tell: Progress,
) -> LabelReport:
    """Has the label teacher answer these prompts, and leaves the rows that are learnt from in ``folder``. Hold the
    home's lock.

    Args:
        wanted: rows with the served teacher's answer, which is compared with and otherwise not used; none is audited.

    Raises:
        PolicyError: nobody knows what the label teacher costs, or it has no key.
    """
    declared, work = policy.distil.labels_from, settings.work(policy.name)
    assert declared is not None
    backend = label_backend(policy, env)
    tell.stage("labels", f"{backend.label} answers {len(wanted)} prompts, for at most {declared.usd_per_round} USD")
    ordered = sorted(wanted, key=lambda row: (-row.weight, -row.created_at, row.request_id))
    calls = [call_of(row, backend) for row in ordered]
    found = _Labelling(policy, env, declared, backend, calls, work, encoder, tell)
    asyncio.run(found.run())
    write_atomically(folder / LABELLED, b"".join(one.labelled.to_json() + b"\n" for one in found.pairs))
    report = LabelReport(
        run=uuid.uuid4().hex,
        teacher=backend.label,
        served=policy.teacher.model,
        place=declared.place,
        wanted=len(wanted),
        rows=len(found.pairs),
        out={why.value: n for why, n in found.out.most_common()},
        cost_usd=str(found.usd),
        stopped=found.stopped,
        agreement=[rate.as_dict() for rate in found.agreement],
    )
    if found.usd:
        line = {"kind": LABELS, "at": time.time(), **asdict(report)}
        remember(work, json.loads(json.dumps(line)))
    return report


def labelled_rows(folder: Path) -> dict[str, DatasetRow]:
    """What ``label`` left in a round's folder, by request; empty where it was not asked."""
    path = folder / LABELLED
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    return {row.request_id: row for row in map(DatasetRow.from_json, filter(None, lines))}


@dataclass(slots=True)
class _Labelling:
    """One run: its calls, and what becomes of them."""

    policy: Policy
    env: Mapping[str, str]
    declared: LabelTeacher
    backend: Backend
    calls: Sequence[LabelCall]
    work: Path
    encoder: Callable[[], Encoder | None]
    tell: Progress
    pairs: list[LabelledPair] = field(default_factory=list)
    out: Counter[LabelFault] = field(default_factory=Counter)
    usd: Decimal = Decimal(0)
    stopped: str = ""
    agreement: list[AgreementRate] = field(default_factory=list)

    async def run(self) -> None:
        forget(self.work / CALLS, before=time.time() - DAY_SECONDS * self.policy.log.retention_days)  # of what is gone
        models, journal = careful(), Journal(self.work / CALLS)
        booked = sum((Decimal(line["cost_usd"]) for line in label_spending(self.work)), Decimal(0))
        purse = Purse(self.declared.usd_per_round, journal.spent - booked)
        paid = PaidCalls(models, purse, journal, self.declared.concurrency)
        try:
            listed = await listed_rights(models, self.backend)
            if listed is not None and listed[0] is Rights.FORBIDDEN:
                said = f"says that its answers may not be trained on ({listed[1]})"
                self.stopped = f"{self.backend.label}'s own server {said}"
            else:
                unanswered = await self._asked(paid, purse, journal)
                self.stopped = unanswered.stopped
                means = Means(paid_by(paid, judge_backends(self.policy, self.env)), encoder=self.encoder)
                judges = Judges(self.policy.judge, means)
                self._sift(journal, judges, unanswered, listed)
                self.agreement = await agreement(self.pairs, judges)
        finally:
            self.usd = purse.spent
            journal.close()
            await models.close()

    async def _asked(self, paid: PaidCalls, purse: Purse, journal: Journal) -> CallFailures:
        """By batches where the policy says so and the server has them; what an earlier policy left in one is taken
        in."""

        def told(done: int, of: int) -> None:
            self.tell.step(done, of, f"{purse.spent:.4f} of {self.declared.usd_per_round} USD")

        fresh = list({call.name: call for call in self.calls if journal.known(call.name) is None}.values())
        batch, backend = self.declared.batch, self.backend
        has_url = backend.url is not None and backend.dialect is Dialect.OPENAI
        if has_url and ((batch and fresh) or journal.batches):
            wire, folder = BatchWire(), self.work / BATCHES
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                found = await BatchedCalls(wire, backend, purse, journal, folder, told).ask(fresh if batch else [])
                if batch:
                    return found
            except BatchesMissing:
                pass
            finally:
                await wire.close()
        each = await ask_each(paid, backend, fresh, self.declared.concurrency, told)
        why = f"{backend.label} has no batches, so it was asked call by call" if batch and fresh else ""
        return CallFailures("; ".join(filter(None, (why, each.stopped))), each.faults)

    def _sift(
        self, journal: Journal, judges: Judges, unanswered: CallFailures, listed: tuple[Rights, str] | None
    ) -> None:
        """What is learnt from, and why the rest of what was asked is not."""
        place = self.declared.place if listed is None else f"{self.declared.place}, whose {listed[1]} allows it"
        closed = ClosedAnswers.of(call.row for call in self.calls)
        sieve = LabelFilter(self.policy, judges, closed, self.backend.label, place)
        for call in self.calls:
            if (said := journal.known(call.name)) is not None:
                row = sieve.row(call.row, said)
                if isinstance(row, DatasetRow):
                    self.pairs.append(LabelledPair(call.row, row))
                else:
                    self.out[row] += 1
            elif call.name in unanswered.faults:
                self.out[unanswered.faults[call.name]] += 1
