"""A run of synthesis: what is written for the weak kinds within a budget, and what that leaves behind.

Its folder, ``<home>/work/<policy>/synthesis``, holds the dataset that the run looks at and every paid call; a run
that was killed goes on from there. Once the rows are kept and the money is written down the folder goes.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from distiller.payments import Journal, PaidCalls, Purse
from distiller.progress import Progress
from distiller.synthesis.filters import said
from distiller.synthesis.plan import planned
from distiller.synthesis.shelf import book, booked, keep
from distiller.synthesis.writer import Writer
from router.backends.client import careful
from router.contracts.files import write_atomically
from router.policy.policy import Policy
from router.scoring.text.encoder import Encoder
from router.settings import Settings

FOLDER, RUN, CALLS, DATASET = "synthesis", "run.json", "calls.jsonl", "dataset"
STALE_SECONDS = 86_400
"""A killed run older than that is not gone on with: what it looked at is no longer the traffic."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did. ``cost_usd`` is what all its calls cost, those before a kill too; ``kept`` are rows by kind,
    ``wanted`` likewise, ``out`` what was paid for and not kept, by reason."""

    run: str
    cost_usd: str
    kept: dict[str, int]
    wanted: dict[str, int]
    out: dict[str, int]
    stopped: str

    @property
    def rows(self) -> int:
        return sum(self.kept.values())


def synthesize(
    policy: Policy,
    settings: Settings,
    env: Mapping[str, str],
    *,
    usd: Decimal,
    encoder: Callable[[], Encoder | None],
    tell: Progress,
    per_cluster: int | None = None,
    seed: int = 0,
    run: str | None = None,
) -> Report:
    """Writes synthetic rows for at most ``usd``, keeps them for every dataset from now on, and books what they cost.

    Goes on with a run that was killed: what that spent counts against ``usd``. Hold the home's lock.

    Args:
        run: the run's name; one that ended before is only told of again. None: the killed run's, else a new one.

    Raises:
        TrainingError, PolicyError: see ``planned``; before the first call.
    """
    if run is not None and (before := booked(settings, policy.name, run)) is not None:
        return Report(**{name: before[name] for name in Report.__dataclass_fields__})
    folder = settings.work(policy.name) / FOLDER
    begun = _begun(policy, settings, folder, run)
    tell.stage("synthesize", "looking for kinds that are thin, or that the student fails at")
    plan = planned(policy, settings, env, encoder, folder=folder / DATASET, per_cluster=per_cluster)
    wanted = {kind.name: kind.wanted for kind in plan.kinds}
    tell.stage("synthesize", f"{sum(wanted.values())} requests of {len(wanted)} kinds, for at most {usd} USD")
    calls = folder / CALLS

    async def write() -> tuple[Writer, Decimal]:
        models, journal = careful(), Journal(calls)
        purse = Purse(usd, journal.spent)
        writer = Writer(
            policy,
            plan,
            PaidCalls(models, purse, journal),
            at=begun["at"],
            seed=seed,
            encoder=encoder,
            on_row=lambda done, of: tell.step(done, of, f"{purse.spent:.4f} of {usd} USD"),
        )
        try:
            await writer.run()
        finally:
            journal.close()
            await models.close()
        return writer, purse.spent

    writer, spent = asyncio.run(write())
    rows = [row for progress in writer.progress for row in progress.rows]
    kept_by_kind = {progress.kind.name: len(progress.rows) for progress in writer.progress}
    report = Report(begun["run"], str(spent), kept_by_kind, wanted, said(writer.out), writer.stopped)
    keep(settings, policy.name, rows)
    book(settings, policy.name, begun["run"], spent, asdict(report))
    shutil.rmtree(folder)
    return report


def _begun(policy: Policy, settings: Settings, folder: Path, run: str | None) -> dict[str, Any]:
    """The run's name and when it began: the killed one's, where that can be gone on with."""
    now, begun = time.time(), _unfinished(settings, policy.name)
    if begun and now - begun["at"] < STALE_SECONDS:
        begun = {**begun, "run": run or begun["run"]}
    else:
        give_up(settings, policy.name, "it was killed, and is too old to go on with")
        folder.mkdir(parents=True)
        begun = {"run": run or uuid.uuid4().hex, "at": now}
    write_atomically(folder / RUN, json.dumps(begun).encode())
    return begun


def give_up(settings: Settings, policy: str, why: str) -> None:
    """Ends a run that was killed: what it has spent is booked, and its folder goes. Hold the home's lock."""
    folder = settings.work(policy) / FOLDER
    if begun := _unfinished(settings, policy):
        journal = Journal(folder / CALLS)
        journal.close()
        gone = Report(begun["run"], str(journal.spent), {}, {}, {}, why)
        book(settings, policy, begun["run"], journal.spent, asdict(gone))
    shutil.rmtree(folder, ignore_errors=True)


def _unfinished(settings: Settings, policy: str) -> dict[str, Any]:
    """What a killed run noted of itself; empty where there is none whose money is not booked."""
    try:
        begun: dict[str, Any] = json.loads((settings.work(policy) / FOLDER / RUN).read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return begun if booked(settings, policy, begun["run"]) is None else {}
