"""Student share, parity and saving: what each of them is, for headers, ``locum status``, metrics, replay and economics.

All three are of what happened to one policy's requests. The traffic is what ``is_traffic`` says: not what a client
forced to a tier, and not what a failure moved. Money is of all requests, forced ones too, since all are paid.

- **Student share**: of the traffic that was answered, the part that the student answered.
- **Selective risk**: of what the student answered, the part whose answer is not as good as the teacher's. Audits tell
  it, each counted for the 1/propensity requests that it was drawn from (``Record.stands_for``).
- **Parity**: of the traffic that was answered, the part for which the client got what is as good as the teacher's
  answer. All that the teacher answered is; of the rest the selective risk is not. So no audit is needed where the
  student answers nothing, and an audit of what the teacher answered tells nothing of it.
- **Alone**: what the policy's first teacher alone would have cost for the answers that it would have given. For its own
  answer that is its bill; for the student's, an estimate at its price (``router.routing.lengths`` says how long). Where
  a failure moved the request (``is_moved``) nothing is saved or lost by who stood in: a teacher that gave no answer
  would have cost nothing and helped nobody, so the answer counts on both sides with what was paid for it. A budget that
  is spent is no failure: the teacher alone would have gone on costing.
- **Saving**: that, less all that was spent: on what was served, thrown away, audited and judged, and on rounds. It may
  be negative.

Prometheus has the same from raw counters: the recording rules in ``dashboards/prometheus/rules.yml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from router.contracts.decision import Tier, is_moved


def student_share(answered: Mapping[Tier, int]) -> float:
    """Of the traffic that was ``answered``, by tier; 0 of none."""
    return answered.get(Tier.STUDENT, 0) / max(1, sum(answered.values()))


def parity(share: float, risk: float | None) -> float | None:
    """By student share and selective risk; None where the student serves and nothing is known of its risk."""
    if share == 0:
        return 1.0
    return None if risk is None else 1 - share * risk


def alone_usd(fallback: str | None, paid: Decimal, would_cost: Decimal) -> Decimal:
    """What the teacher alone would have cost, in US dollars: ``paid`` is what the served answer cost, ``would_cost``
    what the teacher's would have."""
    return paid if is_moved(fallback) else would_cost


def saved_usd(alone: Decimal, spent: Decimal) -> Decimal:
    """Signed, in US dollars: ``alone`` is what the teacher alone would have cost."""
    return alone - spent


def saved_share(alone: Decimal, spent: Decimal) -> float | None:
    """The saving over what the teacher alone would have cost; None where that is nothing."""
    return float(saved_usd(alone, spent) / alone) if alone else None
