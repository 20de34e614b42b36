"""A log's calls as what the report needs of them, in bounded memory: sums over all, and a uniform sample of them."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

import orjson

from distiller.logs.calls import LoggedCall, SkipReason, Source
from distiller.logs.files import LogFile
from distiller.logs.reader import HalfCalls, calls_in
from distiller.progress import Progress
from router.errors import DatasetError
from router.heads.answers import Fields, fields_of
from router.heads.kinds import SYSTEM_CHARACTERS
from router.price_map import litellm_price
from router.pricing import cost_usd
from router.scoring.text.features import CONTEXT_WINDOW, USER_WINDOW, Features, extract, window

MOST_ROWS = 20_000
"""Calls that are looked at one by one; of a longer log a uniform sample."""
SEED = 0
TOLD_EVERY = 500
MEGA = 10**6


@dataclass(slots=True)
class ScanRow:
    """One call. ``at`` is unix time; ``place`` its place in the log; ``prompt`` stands for all that was asked; ``usd``
    what it cost, None where nobody knows."""

    at: float | None
    place: int
    features: Features
    fields: Fields | None
    prompt: bytes
    model: str
    usd: Decimal | None


@dataclass(slots=True)
class ModelBill:
    """All calls of one model; ``estimated`` of them count no tokens of their own, ``unpriced`` have no price."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: Decimal = Decimal(0)
    estimated: int = 0
    unpriced: int = 0


@dataclass(slots=True)
class LogSums:
    """Over the whole log: ``lines`` that were read, calls by their ``sources``, and what was not used, by why."""

    lines: int = 0
    sources: Counter[Source] = field(default_factory=Counter)
    skipped: Counter[SkipReason] = field(default_factory=Counter)
    models: dict[str, ModelBill] = field(default_factory=dict)
    first_at: float | None = None
    last_at: float | None = None
    timed: int = 0

    @property
    def calls(self) -> int:
        return self.sources.total()

    @property
    def usd(self) -> Decimal:
        return sum((bill.usd for bill in self.models.values()), Decimal(0))


class RowSample:
    """Takes calls; keeps ``most`` of them at most, each with the same chance."""

    def __init__(self, most: int = MOST_ROWS) -> None:
        self.sums = LogSums()
        self._rows: list[ScanRow] = []
        self._most, self._draw = most, random.Random(SEED)
        self._keys: set[int] = set()

    def skip(self, why: SkipReason, times: int = 1) -> None:
        self.sums.skipped[why] += times

    def add(self, call: LoggedCall) -> None:
        key = int(call.key[:16], 16)
        if key in self._keys:
            self.skip(SkipReason.DUPLICATE)
            return
        self._keys.add(key)
        usd = self._count(call)
        place = self.sums.calls - 1
        if place < self._most:
            self._rows.append(row_of(call, place, usd))
        elif (at := self._draw.randrange(place + 1)) < self._most:
            self._rows[at] = row_of(call, place, usd)

    def _count(self, call: LoggedCall) -> Decimal | None:
        sums, usd = self.sums, usd_of(call)
        sums.sources[call.source] += 1
        bill = sums.models.setdefault(call.model or "unnamed", ModelBill())
        bill.calls += 1
        bill.input_tokens += call.usage.input_tokens
        bill.output_tokens += call.usage.output_tokens
        bill.estimated += call.usage.estimated
        bill.unpriced += usd is None
        bill.usd += usd or Decimal(0)
        if call.at is not None:
            sums.timed += 1
            sums.first_at = call.at if sums.first_at is None else min(sums.first_at, call.at)
            sums.last_at = call.at if sums.last_at is None else max(sums.last_at, call.at)
        return usd

    def rows(self) -> list[ScanRow]:
        """Oldest first. Where calls lack a time, all are as they stand in the log."""
        timed = self.sums.timed == self.sums.calls
        return sorted(self._rows, key=lambda row: ((row.at or 0.0) if timed else 0.0, row.place))


def usd_of(call: LoggedCall) -> Decimal | None:
    """What the log says that it cost, else by the price map; None where neither tells."""
    if call.cost_usd:
        return call.cost_usd
    price = litellm_price(call.model)
    return None if price is None else cost_usd(call.usage, price)


def row_of(call: LoggedCall, place: int, usd: Decimal | None) -> ScanRow:
    body = {**call.request, "metadata": {"task": call.task or ""}}
    features = extract(body)
    user, context = features.last_user, features.context
    if len(user) > 2 * USER_WINDOW or len(context) > CONTEXT_WINDOW:  # what is read of it is kept, not megabytes
        features = replace(
            features,
            last_user=window(user, 2 * USER_WINDOW),
            context=features.context_window,
            system=window(features.system, SYSTEM_CHARACTERS),
        )
    return ScanRow(
        at=call.at,
        place=place,
        features=features,
        fields=fields_of(call.message) if call.finish_reason in ("stop", "tool_calls") else None,
        prompt=hashlib.blake2b(orjson.dumps(call.request["messages"], default=str), digest_size=8).digest(),
        model=call.model or "unnamed",
        usd=usd,
    )


def sample_of(files: Sequence[Path], only: Source | None, tell: Progress, most: int = MOST_ROWS) -> RowSample:
    """Reads all files, one line at a time.

    Raises:
        DatasetError: one cannot be read, or none holds a call; the message says why lines were not used.
    """
    sample, halves = RowSample(most), HalfCalls()
    with closing(halves):
        for path in files:
            tell.stage("reading", str(path))
            with closing(LogFile(path)) as file:
                for line in file.lines():
                    sample.sums.lines += 1
                    if sample.sums.lines % TOLD_EVERY == 0:
                        tell.step(file.done // MEGA, file.size // MEGA, f"MB, {sample.sums.calls:,} calls")
                    for found in calls_in(line.content, only):
                        joined = halves.joined(found)
                        if isinstance(joined, LoggedCall):
                            sample.add(joined)
                        elif isinstance(joined, SkipReason):
                            sample.skip(joined)
        for why, times in halves.left().items():
            sample.skip(why, times)
    if not sample.sums.calls:
        reasons = "; ".join(f"{times:,} {why.value}" for why, times in sample.sums.skipped.most_common())
        raise DatasetError(f"no call of a model in {', '.join(map(str, files))}: {reasons or 'no line at all'}")
    return sample
