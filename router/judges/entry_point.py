"""Users' own judges: callables of any package that is installed, found by its entry points."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.metadata import entry_points

from router.errors import JudgeError, PolicyError
from router.judges.base import PairJudge
from router.judges.pair import Pair, Verdict

GROUP = "locum.judges"
"""The entry-point group of users' own judges: callables that take a ``Pair`` and give a ``Verdict``, a bool, or
None where they cannot tell."""

OwnCode = Callable[[Pair], Verdict | bool | None]


class OwnJudge(PairJudge):
    """A user's code, which sees all. Raises PolicyError where it is not installed, or cannot be imported."""

    immediate = False
    sees_calls = True
    says_same = False

    def __init__(self, name: str) -> None:
        self._name, self._code = name, own_code(name)

    def now(self, pair: Pair) -> Verdict:
        try:
            found = self._code(pair)
        except Exception as e:  # whatever a user's own code raises, it costs one verdict; its words may be secret
            raise JudgeError(f"the judge {self._name!r} raised {type(e).__name__}") from e
        if isinstance(found, Verdict):
            return found
        if found is None or isinstance(found, bool):
            return Verdict(found)
        raise JudgeError(f"the judge {self._name!r} gave a {type(found).__name__}, not a Verdict, a bool or None")

    async def verdict(self, pair: Pair) -> Verdict:
        return await asyncio.to_thread(self.now, pair)


def own_code(name: str) -> OwnCode:
    """A user's callable, by its name in the group.

    Raises:
        PolicyError: it is not installed, cannot be imported, or cannot be called.
    """
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise PolicyError(f"no judge {name!r} in the entry-point group {GROUP}: installed there: {there}")
    try:
        found: OwnCode = known[name].load()
    except Exception as e:  # importing a user's module may raise anything
        raise PolicyError(f"the judge {name!r} ({known[name].value}) cannot be imported: {e}") from e
    if not callable(found):
        raise PolicyError(f"the judge {name!r} ({known[name].value}) cannot be called")
    return found
