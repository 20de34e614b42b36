"""What whoever serves a policy must know together, whoever keeps it: the workers of one machine share a file
(``router.routing.state.machine``), and the replicas of many would share a server. Every method answers at once, since
requests wait for it: who keeps it elsewhere answers from what it has here."""

from __future__ import annotations

from typing import Protocol

from router.backends.breakers import Breakers, Rests

NANO = 10**9
VALUE_BITS = 20
VALUES = (1 << VALUE_BITS) - 1


class Account(Protocol):
    """One sum of money by UTC day (days since 1970), in whole nano-dollars: what all that serve spent and hold."""

    def spent_before(self, day: int, nano: int) -> None:
        """Sets what was spent that day before counting began; saying it again changes nothing."""
        ...

    def fits(self, day: int, nano: int, cap: int) -> bool:
        """Whether so much could be held now: it and all that is spent or held stay within the cap; or nothing is held
        and the cap is not reached. Nothing fits before it is known what was spent before the start."""
        ...

    def reserve(self, day: int, nano: int, cap: int) -> bool:
        """Holds money for an answer under way, if it ``fits``, in one step with asking that."""
        ...

    def settle(self, day: int, held: int, spent: int) -> None:
        """Books what was spent and gives back what was held for it."""
        ...

    def spent(self, day: int) -> int: ...

    def reserved(self) -> int: ...


class Table(Protocol):
    """Keys of 64 bits, each with a value up to ``VALUES``, as long as there is room and a memory for it."""

    def get(self, key: int, within_seconds: float | None = None) -> int | None:
        """The value that was put last, or None where the key is unknown, or was put longer ago than that."""
        ...

    def put(self, key: int, value: int = 0) -> None: ...


class Quantile(Protocol):
    """Follows the scores of all traffic, and says which of them lie above a share."""

    def observe(self, score: float) -> None:
        """Takes note of one request's score, whatever became of the request."""
        ...

    def threshold(self, share: float) -> float:
        """The score from which on the student serves the next request, so that it serves that share."""
        ...


class Trails(Protocol):
    """Places (what was said so far, as 63 bits) and the conversations (63 bits, not 0) that came by there, as long as
    there is room and a memory for them. Each method is one step: nobody else's comes in between."""

    def seen(self, place: int, conversation: int) -> None:
        """The conversation came by. Where others did too, the place is shared from then on."""
        ...

    def reached(self, place: int, conversation: int) -> None:
        """The conversation is here, and may go on. Where others are too, they wait for their turn."""
        ...

    def gone_on(self, place: int) -> int | None:
        """Which conversation goes on from here: of those that have not yet, the one that waits longest, if not for too
        long; else the one that did last. None where there is none; 0 where it is a beginning that is gone on from again
        and again."""
        ...

    def only(self, place: int, most: int = ...) -> int | None:
        """The one conversation that came by, if no other did, and it was not asked for ``most`` times already."""
        ...


class SharedState(Protocol):
    """What one process sees of it. ``escalated``: conversations that went to the teacher; ``cached_share``: the share
    of input that the teacher's prompt cache served last, by conversation; ``trails``: what tells which conversation a
    request goes on with. ``breakers`` and ``rests``: which backend fails, and which asked to be left alone. ``slot``:
    this process's own place; ``alone``: nobody shares it."""

    slot: int
    alone: bool
    escalated: Table
    cached_share: Table
    trails: Trails
    breakers: Breakers
    rests: Rests

    @property
    def began_at(self) -> float:
        """Unix time at which counting began."""
        ...

    @property
    def knows_spending(self) -> bool:
        """Whether all that was spent before the start is counted (``Account.spent_before``)."""
        ...

    def know_spending(self, known: bool = True) -> None:
        """Until it is known, no money is held."""
        ...

    @property
    def workers(self) -> int:
        """How many there are to spend and to serve."""
        ...

    def account(self, *name: str) -> Account:
        """The money counted under a name. Raises PolicyError where there are too many."""
        ...

    def quantile(self, *name: str) -> Quantile:
        """What follows the scores under a name, from the beginning: ask for it once."""
        ...

    def key(self, *parts: str) -> int:
        """64 bits that stand for these words, and that no client can aim at another's."""
        ...
