"""What a client may put into ``model``, and which policy and tier each name means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from router.cascade.cascade import Cascade
from router.contracts.decision import Tier
from router.errors import NotFound, PolicyError
from router.policy.policy import Policy


def names_of(policy: Policy) -> tuple[str, ...]:
    """The model names that mean this policy."""
    return (f"locum/{policy.name}", policy.name, *policy.aliases)


class Catalog:
    """The names of one set of policies. Made anew when the set changes."""

    def __init__(self, cascades: Sequence[Cascade], created_at: int = 0) -> None:
        """``cascades``: at least one; the first answers for ``locum/student`` and ``locum/teacher``."""
        self.cascades = tuple(cascades)
        self._created_at = created_at
        self._known: dict[str, tuple[Cascade, Tier | None]] = {}
        for cascade in cascades:
            name = cascade.policy.name
            self._known |= dict.fromkeys(names_of(cascade.policy), (cascade, None))
            for tier in Tier:
                self._known[f"{name}/{tier}"] = self._known[f"locum/{name}/{tier}"] = (cascade, tier)
        for tier in Tier:
            self._known[f"locum/{tier}"] = (cascades[0], tier)
        listed = [n for c in cascades for n in (f"locum/{c.policy.name}", *c.policy.aliases)]
        self._listed = dict.fromkeys([*listed, *(f"locum/{tier}" for tier in Tier)])

    @staticmethod
    def check(policies: Iterable[Policy]) -> None:
        """Raises PolicyError where two policies claim one model name."""
        claimed: dict[str, str] = {}
        for policy in policies:
            for name in names_of(policy):
                if claimed.setdefault(name, policy.name) != policy.name:
                    raise PolicyError(f"the policies {claimed[name]} and {policy.name} both claim the model {name!r}")

    def resolve(self, name: str) -> tuple[Cascade, Tier | None]:
        """The policy that a model name means, and the tier where the name forces one.

        Raises:
            NotFound: nothing has this name; the message lists what there is.
        """
        found = self._known.get(name)
        if found is None:
            raise NotFound(f"no model {name!r} here; there is {', '.join(self._listed)}", param="model")
        return found

    def listed(self) -> list[dict[str, Any]]:
        return [self.entry(name) for name in self._listed]

    def entry(self, name: str) -> dict[str, Any]:
        """One name in OpenAI's form. Raises NotFound."""
        self.resolve(name)
        return {"id": name, "object": "model", "created": self._created_at, "owned_by": "locum"}
