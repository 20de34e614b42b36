"""Weighs the next round of a policy by its log and its history."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal

from distiller.economics.flow import DAY_SECONDS, Rates, flow_of
from distiller.economics.worth import Line, Worth, expected_gain, next_cost, weighed
from router.contracts.rounds import bought_runs, canaries, history, label_spending, synthetic_spending
from router.policy.policy import Policy
from router.settings import Settings
from router.store.access import reading

DAYS = 7
"""Of the log, that tell how much traffic there is."""
FRESH_SECONDS = 3600.0
"""How long one reading of the log holds."""


class Scales:
    """Reads the log anew once an hour at most, and where a round ended meanwhile."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock
        self._known: dict[tuple[str, str, int], tuple[float, Worth]] = {}

    def worth(self, policy: Policy) -> Worth | None:
        """The next training round; None where it costs nothing, where nothing is known of what one costs, and where
        the policy aims at something else than a larger share: a better student then shows in quality, not in USD."""
        rounds = rounds_of(self._settings, policy.name)
        cost = next_cost(rounds, policy.distil.usd_per_hour)
        if not policy.distil.usd_per_hour or cost is None or policy.objective.floor is None:
            return None
        key, now = (policy.name, policy.version, len(rounds)), self._clock()
        at, known = self._known.get(key, (0.0, None))
        if known is not None and now - at < FRESH_SECONDS:
            return known
        with reading(self._settings) as log:
            records = (record for _, record in log.records(policy.name, since=now - DAYS * DAY_SECONDS))
            flow = flow_of(records, Rates(policy.student.usd_per_million))
        moved = flow.moved_per_request(policy.audit.rate)
        gain = expected_gain(rounds, flow.share)
        found = weighed(cost.usd, gain, flow.requests_per_day, moved, policy.distil.payback_days)
        self._known = {k: v for k, v in self._known.items() if k[0] != policy.name} | {key: (now, found)}
        return found


def data_usd(settings: Settings, policy: str, since: float) -> Decimal:
    """What was paid since a unix time for synthetic data and to label teachers that no round's cost holds."""
    work = settings.work(policy)
    held = bought_runs(history(work))
    bought = [*synthetic_spending(work), *label_spending(work)]
    paid = (s for s in bought if s["run"] not in held and s["at"] >= since)
    return sum((Decimal(s["cost_usd"]) for s in paid), Decimal(0))


def rounds_of(settings: Settings, policy: str) -> list[Line]:
    """The finished rounds, oldest first; one whose bundle its canary rolled back published nothing."""
    work = settings.work(policy)
    undone = {line["bundle"] for line in canaries(work) if not line["kept"]}
    return [{**line, "bundle": None} if line.get("bundle") in undone else line for line in history(work)]
