"""When is a round due? Counting reads each record once; the rest is pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil, log
from typing import Any

from distiller.data.rights import admissible
from distiller.economics.worth import Worth
from distiller.evaluation.gate import LEAST_ROWS
from distiller.home import RoundKind
from router.contracts.decision import NOVEL, Tier
from router.contracts.guard_report import GuardReport
from router.contracts.records import Record
from router.policy.learning import learning
from router.policy.policy import Policy
from router.store.base import Records
from router.store.tables import FIRST_IMPORTED

GROWTH = 1.5
HASTE = 0.5
"""Of the records that a training round waits for, as many as do where parity broke since the last round."""
LEAST_ACCEPTABLE = 10
"""Audits in the student's favour below which there is no share to certify for it."""
LEAST_STRANGE, STRANGE = 20, 0.02
"""Audited requests that were strange to the live scorer since the last round, and their share among those since, from
which on it is refreshed: what is new was judged meanwhile."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What the log holds up to record ``seq``, and what was imported up to ``history``: rows that may be trained on,
    audited ones, those of them where the student's answer was acceptable (as far as the verdict was there when it was
    read), and those that were ``strange`` to the scorer of the time."""

    seq: int = 0
    trainable: int = 0
    audited: int = 0
    acceptable: int = 0
    strange: int = 0
    history: int = FIRST_IMPORTED

    def add(self, seq: int, record: Record, policy: Policy) -> Tally:
        """This tally with one more record."""
        usable = record.status == 200 and record.request is not None and record.is_traffic
        usable = usable and record.as_said(Tier.TEACHER)
        audited = usable and record.decision.audited
        trainable = record.usable and not audited and admissible(record, policy)
        acceptable = audited and record.audit is not None and record.audit.acceptable is True
        strange = audited and (record.decision.novelty or 0.0) >= NOVEL
        return Tally(
            max(seq, self.seq),
            self.trainable + trainable,
            self.audited + audited,
            self.acceptable + acceptable,
            self.strange + strange,
            max(seq, self.history) if seq < 0 else self.history,
        )


def count(records: Records, policy: Policy, known: Tally = Tally()) -> Tally:
    """Counts on from ``known``: only records that came later are read."""
    tally = known
    imported = records.history(policy.name, after=known.history)
    for seq, record in chain(imported, records.records(policy.name, after=known.seq)):
        tally = tally.add(seq, record, policy)
    return tally


def fewest_audits(policy: Policy) -> int:
    """Audited rows below which no threshold can be certified: without a single failure, n of them show parity p at
    confidence c once p**n <= 1 - c. 1 where nothing is promised."""
    goal = policy.objective.floor
    return 1 if goal is None else ceil(log(1 - goal.confidence) / log(goal.at_least))


def enough_audits(policy: Policy) -> int:
    """Audited rows from which on a threshold can be certified with room for some failures: twice the fewest."""
    return max(LEAST_ROWS, 2 * fewest_audits(policy))


def nothing_to_tune(right: int) -> str | None:
    """Why no threshold is looked for where at most so many audits speak for the student; None where one may be
    found. A count, not a share: audits of the students before it are among those that do not."""
    if right >= LEAST_ACCEPTABLE:
        return None
    return f"the student was right in no more than {right} audits: nothing to tune for"


def due(
    policy: Policy,
    tally: Tally,
    rounds: Sequence[Mapping[str, Any]],
    guarded: GuardReport | None = None,
    worth: Worth | None = None,
) -> tuple[RoundKind | None, str]:
    """Which round is due, if any, and why or why not.

    A student is trained once enough new records are there, and tuned for again once the audits have
    grown by half (more evidence certifies a looser threshold), or many of the new ones were strange to its scorer,
    and some of them spoke for it. Where parity broke
    since the last round, a new student is what helps, and ``HASTE`` of the records are enough; tuning is the
    guard's meanwhile. Elsewhere none is trained that would not pay.

    Args:
        rounds: the finished rounds, promoted or not, oldest first: what was rejected once is not tried
            again on the same data.
        guarded: what the guard over the live bundle found.
        worth: the next training round, weighed; None where it costs nothing, or nobody can tell.
    """
    trained = next((r["tally"]["trainable"] for r in reversed(rounds) if r["kind"] == RoundKind.TRAIN), 0)
    before = rounds[-1]["tally"]["audited"] if rounds else 0
    new, wanted = tally.trainable - trained, policy.distil.min_new_records
    broke = guarded is not None and guarded.changed_at > (rounds[-1]["at"] if rounds else 0.0)
    if broke:
        wanted = ceil(HASTE * wanted)
    if new >= wanted and tally.audited < LEAST_ROWS:
        return None, f"{new} new trainable records, but {tally.audited} of {LEAST_ROWS} audited requests to judge by"
    waits = f"{new} of {wanted} new trainable records"
    if not tally.trainable and not (verdict := learning(policy)).can:
        waits += f" (this policy {verdict.words})"
    if new >= wanted and worth is not None and not worth.pays and not broke:
        waits = f"{new} new trainable records, but {worth.why}"
    elif new >= wanted:
        return RoundKind.TRAIN, f"{new} new trainable records{', and parity broke' if broke else ''}"
    strange = tally.strange - (rounds[-1]["tally"].get("strange", 0) if rounds else 0)
    is_new = strange >= max(LEAST_STRANGE, STRANGE * (tally.audited - before))
    enough = max(enough_audits(policy), 0 if is_new else ceil(before * GROWTH))
    if tally.audited >= enough and (hopeless := nothing_to_tune(tally.acceptable)):
        return None, f"{waits}; {hopeless}"
    if tally.audited >= enough:
        why = f", {strange} of the new ones strange to the scorer" if is_new else ""
        return RoundKind.CALIBRATE, f"{tally.audited} audited requests, {before} at the last round{why}"
    return None, f"{waits}, {tally.audited} of {enough} audited requests"
