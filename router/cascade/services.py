"""What all policies share, for the life of the process."""

from __future__ import annotations

from dataclasses import dataclass, field

from router.backends.client import BackendClient
from router.backends.thoughts import Owed
from router.cascade.drain import Drain
from router.metrics.metrics import Metrics
from router.store.base import Store


@dataclass(frozen=True, slots=True)
class Services:
    """What all policies share, for the life of the process."""

    tiers: BackendClient
    store: Store
    metrics: Metrics
    drain: Drain
    owed: Owed = field(default_factory=Owed)
