"""A log's calls by their kinds, each with a name of its own."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from distiller.scan.rows import ScanRow
from router.heads.kinds import LEAST_ROWS, KindKey, RequestKinds, name_of

MOST_KINDS = 20
OTHERS = "all others"


@dataclass(slots=True)
class RequestTemplate:
    """A kind of requests; ``rows`` are places among the sample's, oldest first; ``key`` is None of all others."""

    name: str
    key: KindKey | None
    rows: list[int]


def kinds_of(rows: Sequence[ScanRow]) -> RequestKinds:
    """What tells the calls' kinds apart."""
    return RequestKinds.fit([row.features for row in rows])


def parted(kinds: RequestKinds, rows: Sequence[ScanRow]) -> list[RequestTemplate]:
    """The kinds of these, the largest first, and last what is in none of them."""
    groups = defaultdict[KindKey, list[int]](list)
    for place, row in enumerate(rows):
        groups[kinds.of(row.features)].append(place)
    often = sorted((key for key in groups if len(groups[key]) >= LEAST_ROWS), key=lambda key: -len(groups[key]))
    often = often[:MOST_KINDS]
    names = _told_apart(often)
    found = [RequestTemplate(name, key, groups[key]) for name, key in zip(names, often, strict=True)]
    seldom = sorted(place for key, places in groups.items() if key not in often for place in places)
    return [*found, RequestTemplate(OTHERS, None, seldom)] if seldom else found


def _told_apart(kinds: Sequence[KindKey]) -> list[str]:
    """A name for each: with what is special in its shape where others have the same, and else a number."""
    plain = [name_of(key) for key in kinds]
    times, seen, found = Counter(plain), Counter[str](), []
    for name, (_, _, _, shape) in zip(plain, kinds, strict=True):
        about = [
            *(["going on"] if shape.continued else []),
            *(["with pictures"] if shape.images else []),
            *([f"tools {', '.join(shape.tools[:3])}"] if shape.tools and "tools" not in name else []),
            *([shape.form] if shape.form else []),
        ]
        whole = f"{name} ({'; '.join(about)})" if about and times[name] > 1 else name
        seen[whole] += 1
        found.append(f"{whole} #{seen[whole]}" if seen[whole] > 1 else whole)
    return found
