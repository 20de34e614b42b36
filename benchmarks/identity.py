"""Who is who: conversations wrongly joined and wrongly split, by shape of traffic, for Locum and for three other ways.

Each shape is generated traffic of which the truth is known: who says what when, and what the client does to its
history before it sends it. All conversations of a shape come with one key, their turns mixed in time, after times to
think that differ. Of a shape's conversations those count as wrongly joined of which a request got the name that a
request of another one got, and as wrongly split those that got several names. Requests that say word for word what
another conversation's does, to the same instructions (all say hi, and are greeted alike), can be told apart by nobody:
they count by themselves, as swapped, where such a request got another name than the rest of its conversation. Answers
are written by a seeded generator.

Beside Locum: the hash of the opening (system messages and the first user turn), the hash of all that was said before
the last turn (a request goes on with the one whose prompt and answer are its prefix, byte for byte), and the client's
word alone (without one each request is a conversation).

    python benchmarks/identity.py --out benchmarks/results/identity.json
    python benchmarks/identity.py --conversations 20
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import orjson
from harness import Row, conditions, write_result
from identity_shapes import SHAPES, Talk
from rich.console import Console
from rich.table import Table

from router.api.sessions import conversation_named
from router.api.surface import identified
from router.routing.conversations import Identities
from router.routing.state.machine import MachineState


class Way(Protocol):
    """A way to tell conversations: the name of a request's, and what it is told of the answer."""

    def name(self, headers: Mapping[bytes, bytes], body: Mapping[str, Any], request: str) -> str: ...

    def answered(self, answer: Mapping[str, Any]) -> None: ...


class LocumWay:
    """What the proxy does, by its own code. ``seconds`` are those of CPU that each request took."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._identities = Identities(MachineState(clock=lambda: 1.79e9 + clock()))
        self.seconds: list[float] = []

    def name(self, headers: Mapping[bytes, bytes], body: Mapping[str, Any], request: str) -> str:
        began = time.process_time()
        named = conversation_named(headers, body)
        self._last = identified(self._identities, body, owner="k", request_id=request, named=named)
        self.seconds.append(time.process_time() - began)
        return self._last.conversation

    def answered(self, answer: Mapping[str, Any]) -> None:
        began = time.process_time()
        self._identities.answered(self._last, answer)
        self.seconds[-1] += time.process_time() - began


class OpeningHash:
    """System messages and the first user turn."""

    def name(self, headers: Mapping[bytes, bytes], body: Mapping[str, Any], request: str) -> str:
        messages = body["messages"]
        first = next((n for n, m in enumerate(messages) if m["role"] == "user"), 0)
        return _hash(messages[: first + 1])

    def answered(self, answer: Mapping[str, Any]) -> None:
        pass


class PrefixHash:
    """All that was said before the last user turn, byte for byte."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def name(self, headers: Mapping[bytes, bytes], body: Mapping[str, Any], request: str) -> str:
        self._messages = body["messages"]
        last = max((n for n, m in enumerate(self._messages) if m["role"] == "assistant"), default=None)
        self._name = self._known.get(_hash(self._messages[: last + 1]), request) if last is not None else request
        return self._name

    def answered(self, answer: Mapping[str, Any]) -> None:
        self._known[_hash([*self._messages, answer])] = self._name


class ClientsWord:
    """What the client says in a header, or nothing."""

    def name(self, headers: Mapping[bytes, bytes], body: Mapping[str, Any], request: str) -> str:
        return conversation_named(headers, body) or request

    def answered(self, answer: Mapping[str, Any]) -> None:
        pass


def _hash(messages: Sequence[Any]) -> str:
    return hashlib.sha256(orjson.dumps(messages)).hexdigest()


class Now:
    """Seconds since the first request."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def traffic(kinds: Sequence[type[Talk]], conversations: int, now: Now, seed: int) -> Iterator[tuple[Talk, int]]:
    """Each turn of each conversation, as they come: (whose, the how manyeth)."""
    rng = random.Random(seed)
    coming: list[tuple[float, int, int, Talk]] = []
    for n in range(conversations):
        talk = kinds[n % len(kinds)](random.Random(seed * 10_007 + n), now, str(n))
        heapq.heappush(coming, (rng.uniform(0, 10.0 * conversations), n, 0, talk))
    while coming:
        now.seconds, n, turn, talk = heapq.heappop(coming)
        yield talk, turn
        if turn + 1 < talk.turns:
            heapq.heappush(coming, (now.seconds + rng.lognormvariate(3.4, 0.8), n, turn + 1, talk))


def measured(way: Way, kinds: Sequence[type[Talk]], conversations: int, now: Now, seed: int) -> Row:
    """How many conversations were joined, split and swapped."""
    found: list[tuple[str, tuple[str, str, bytes], str]] = []
    for n, (talk, turn) in enumerate(traffic(kinds, conversations, now, seed)):
        messages = talk.asked(turn)
        found.append((talk.name, talk.said(), way.name(talk.headers, {"messages": messages, **talk.body}, f"req-{n}")))
        answer = talk.answer(turn)
        way.answered(answer)
        talk.keeps(turn, answer)
    speakers: dict[tuple[str, str, bytes], set[str]] = defaultdict(set)
    for talk_name, said, _ in found:
        speakers[said].add(talk_name)
    names, whose = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for talk_name, said, name in found:
        if len(speakers[said]) == 1:
            names[talk_name].add(name)
            whose[name].add(talk_name)
    return {
        "joined": len({talk_name for talks in whose.values() if len(talks) > 1 for talk_name in talks}),
        "split": sum(len(given) > 1 for given in names.values()),
        "swapped": len({t for t, said, name in found if len(speakers[said]) > 1 and name not in names[t]}),
    }


def compared(conversations: int, seeds: int) -> list[Row]:
    """A row a way: of each shape the means over the seeds."""
    rows = []
    for name in ("locum", "hash of the opening", "hash of the whole prefix", "the client's word alone"):
        row: Row = {"name": name, "shapes": {}}
        seconds: list[float] = []
        for shape, kinds in SHAPES.items():
            found = []
            for seed in range(seeds):
                now = Now()
                way = _way(name, now)
                found.append(measured(way, kinds, conversations, now, seed))
                seconds += way.seconds if isinstance(way, LocumWay) else []
            row["shapes"][shape] = {what: round(statistics.mean(f[what] for f in found), 1) for what in found[0]}
        if seconds:
            row["median_us"] = round(1e6 * statistics.median(seconds), 1)
        rows.append(row)
    return rows


def _way(name: str, now: Now) -> Way:
    match name:
        case "locum":
            return LocumWay(now)
        case "hash of the opening":
            return OpeningHash()
        case "hash of the whole prefix":
            return PrefixHash()
    return ClientsWord()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=60, help="of each shape")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, help="the result file; without it only the table is shown")
    args = parser.parse_args()
    rows = compared(args.conversations, args.seeds)
    if args.out:
        told = conditions(
            conversations=args.conversations, seeds=args.seeds, traffic="generated", figures="means over seeds"
        )
        write_result(args.out, "identity", told, rows)
    table = Table("joined / split / swapped", *(row["name"] for row in rows), box=None)
    for shape in SHAPES:
        cells = (row["shapes"][shape] for row in rows)
        table.add_row(shape, *(" / ".join(f"{n:g}" for n in cell.values()) for cell in cells))
    Console().print(table)


if __name__ == "__main__":
    main()
