"""The day-one report as values: what was read, its kinds, its money, what heads would have carried, what to do next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from distiller.logs.terms import rights_of, why
from distiller.scan.kinds import kinds_of, parted
from distiller.scan.outlook import CONFIDENCE, Carried, HeadOutlook, KindOutlook, outlook_of
from distiller.scan.rows import LogSums, RowSample, ScanRow
from router.contracts.records import Rights
from router.scoring.statistics.estimates import Interval
from router.scoring.text.encoder import Encoder

MONTH_DAYS, DAY_SECONDS = 30, 86_400
LEAST_DAYS = 1 / 24
AUDITED = Decimal("0.02")
"""Of what a head serves, the share that the teacher answers too: the default policy's rate of audits."""
MOST_TOKENS = 4096
"""Of a request that a small student takes, by the default policy."""
LEAST_REPEATS = 20


@dataclass(frozen=True, slots=True)
class Scan:
    """The whole report. ``days`` is None where the log has no times; a month is 30 days. ``agreement`` is how often the
    log gave the same answer again to exactly the same request (closed answers alone), None where that hardly came.
    ``within_reach`` is the share of requests that a small language model takes at all."""

    files: tuple[str, ...]
    sums: LogSums
    rows: int
    days: float | None
    in_order: str
    outlook: HeadOutlook
    kind_usd: tuple[Decimal, ...]
    agreement: float | None
    within_reach: float
    encoder: str | None

    @property
    def month_usd(self) -> Decimal | None:
        """What a month costs at the log's own volume and models; None where the log has no times."""
        return None if self.days is None else self.sums.usd * MONTH_DAYS / Decimal(str(self.days))

    @property
    def requests_per_day(self) -> float | None:
        return None if self.days is None else self.sums.calls / self.days

    def saved_usd(self, carried: Carried) -> Interval | None:
        """What a month would cost less under a floor, net of audits; limits by those of the share alone."""
        if self.month_usd is None or carried.share.estimate is None:
            return None
        whole = float(self.month_usd * (1 - AUDITED)) * carried.usd_share
        scale = whole / carried.share.estimate if carried.share.estimate else 0.0
        return Interval(whole, scale * carried.share.low, scale * carried.share.high)

    @property
    def teacher(self) -> str:
        """The model that most was spent on, else that was asked most."""
        return max(self.sums.models, key=lambda m: (self.sums.models[m].usd, self.sums.models[m].calls), default="")

    @property
    def trainable(self) -> dict[Rights, int]:
        found = defaultdict[Rights, int](int)
        for model, bill in self.sums.models.items():
            found[rights_of(model)] += bill.calls
        return dict(found)


def scan_of(sample: RowSample, files: Sequence[str], encoder: Encoder | None) -> Scan:
    """Everything from what was read; the time goes into the heads."""
    rows, sums = sample.rows(), sample.sums
    found = outlook_of(rows, parted(kinds_of(rows), rows), encoder)
    timed = sums.timed == sums.calls
    return Scan(
        files=tuple(files),
        sums=sums,
        rows=len(rows),
        days=_days(sums),
        in_order="by time" if timed else "in the order of the log, since not every call has a time",
        outlook=found,
        kind_usd=tuple(_usd([rows[place] for place in one.kind.rows], rows, sums) for one in found.kinds),
        agreement=_agreement(rows),
        within_reach=sum(map(_is_within_reach, rows)) / max(1, len(rows)),
        encoder=encoder.name if encoder else None,
    )


def _days(sums: LogSums) -> float | None:
    if sums.first_at is None or sums.last_at is None:
        return None
    return max(LEAST_DAYS, (sums.last_at - sums.first_at) / DAY_SECONDS)


def _usd(some: Sequence[ScanRow], rows: Sequence[ScanRow], sums: LogSums) -> Decimal:
    """A kind's part of all that was spent, by its part of the sample's."""
    whole = sum((row.usd or Decimal(0) for row in rows), Decimal(0))
    return sums.usd * sum((row.usd or Decimal(0) for row in some), Decimal(0)) / whole if whole else Decimal(0)


def _agreement(rows: Sequence[ScanRow]) -> float | None:
    """Of neighbouring answers to the same request, those that are the same."""
    last: dict[bytes, Any] = {}
    same = repeats = 0
    for row in rows:
        if row.fields is None:
            continue
        if row.prompt in last:
            repeats += 1
            same += last[row.prompt] == row.fields
        last[row.prompt] = row.fields
    return same / repeats if repeats >= LEAST_REPEATS else None


def _is_within_reach(row: ScanRow) -> bool:
    features = row.features
    return (
        not (features.has_images or features.has_audio or features.has_tools) and features.input_tokens <= MOST_TOKENS
    )


def rights_lines(scan: Scan) -> list[tuple[str, int, Rights, str]]:
    """Each model with its calls, its right in the ledger's words, and why; the most asked first."""
    models = sorted(scan.sums.models.items(), key=lambda item: -item[1].calls)
    return [(model, bill.calls, rights_of(model), why(model)) for model, bill in models]


def language_model_line(scan: Scan) -> str:
    """What is known of a student that is a language model: no more than what it could be asked at all."""
    return (
        f"A student that is a language model: unknown until a round has trained one on these answers. It would take "
        f"{scan.within_reach:.0%} of these requests at all (text alone, no tools, at most {MOST_TOKENS:,} tokens); "
        "how many of them it would carry no log can tell."
    )


def best_kinds(scan: Scan) -> list[KindOutlook]:
    """Kinds of which a head carries something at the middle floor, the most first."""
    found = [one for one in scan.outlook.kinds if one.carried and one.carried[1].share.estimate]
    return sorted(found, key=lambda one: -(one.carried[1].share.estimate or 0) * len(one.newer))


def policy_text(scan: Scan) -> str:
    """A policy for this log, as YAML that ``locum policy check`` takes."""
    model = scan.teacher
    named = model if "/" in model else f"openai/{model}" if model and model != "unnamed" else "openai/gpt-6.1-sol"
    alias = named.rsplit("/", 1)[-1]
    return (
        "\n".join(
            [
                "name: scanned",
                f"aliases: [{alias!r}]",
                "student:",
                "  model: smollm2-135m-instruct",
                "  engine: embedded",
                "  usd_per_million: {input: 0.02, output: 0.06}",
                f"teacher: {{model: {named!r}, training_rights: {rights_of(named).value}}}",
                f"objective: {{parity: {{at_least: 0.95, confidence: {CONFIDENCE}}}}}",
                "audit: {rate: 0.02}",
                "log: {text: true, redact: [email, phone, card, secret], retention_days: 30}",
            ]
        )
        + "\n"
    )


def next_steps(scan: Scan) -> list[str]:
    """What to do, the exact command in each."""
    names = " ".join(_quoted(name) for name in scan.files)
    steps = [
        "save the policy below as scanned.yaml, and check it: locum policy check scanned.yaml",
        f"keep the log as history: locum import {names} --policy scanned.yaml",
    ]
    if rights_of(scan.teacher) is not Rights.ALLOWED:
        steps.append(
            f"the answers of {scan.teacher or 'the teacher'} are {rights_of(scan.teacher).value} to train on: nothing "
            "is learnt from them until you state the right, as teacher.i_have_the_right_to_train_on: [the model's name]"
        )
    steps.append("serve, the teacher answering until audits have certified a student: locum up --policy scanned.yaml")
    steps.append("look at what a round would cost and bring: locum distill economics --policy scanned.yaml")
    return steps


def _quoted(name: str) -> str:
    import shlex

    return shlex.quote(str(Path(name)) if name != "-" else name)
