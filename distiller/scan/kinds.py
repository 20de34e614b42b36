"""Kinds of requests: those of one template, by a name that many of them share word for word."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from distiller.scan.rows import RequestShape, ScanRow
from router.scoring.text.templates import Templates

LEAST_ROWS = 30
"""Requests that make a kind; what comes more seldom is told together."""
MOST_KINDS = 20
NAME_CHARACTERS = 48
OTHERS = "all others"
_NUMBERS = re.compile(r"\d+")
_IDS = re.compile(r"\b[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}\b")
_WORDS = re.compile(r"\s+")
KindKey = tuple[str, str, str, RequestShape]
"""Task, system prompt, frame around the message, shape."""
_ROLES = re.compile(r"^(?:you are |act as |your task is to |please )(?:an? |the )?", re.IGNORECASE)


@dataclass(slots=True)
class RequestTemplate:
    """A kind of requests; ``rows`` are places among the sample's, oldest first; ``key`` is None of all others."""

    name: str
    key: KindKey | None
    rows: list[int]


@dataclass(frozen=True, slots=True)
class RequestKinds:
    """Tells kinds apart: by the task, the system prompt (what seldom is the same as a whole by how it begins) and the
    shape, and among those by the frame around the message."""

    beginnings: Templates
    whole: frozenset[tuple[str, str, RequestShape]]
    frames: Mapping[tuple[str, str, RequestShape], Templates]

    @classmethod
    def fit(cls, rows: Sequence[ScanRow]) -> Self:
        times = Counter(_key(row) for row in rows)
        whole = frozenset(key for key, n in times.items() if n >= LEAST_ROWS)
        beginnings = Templates.fit([key[1] for key in times if key not in whole and key[1]])
        found = cls(beginnings, whole, {})
        texts = defaultdict[tuple[str, str, RequestShape], list[str]](list)
        for row in rows:
            texts[found.prompt_of(row)].append(row.features.last_user)
        often = {key: Templates.fit(some) for key, some in texts.items() if len(some) >= LEAST_ROWS}
        return cls(beginnings, whole, often)

    def prompt_of(self, row: ScanRow) -> tuple[str, str, RequestShape]:
        """Its task, system prompt and shape."""
        task, system, shape = key = _key(row)
        return key if key in self.whole else (task, self.beginnings.split(system)[1] or system, shape)

    def of(self, row: ScanRow) -> KindKey:
        """Which kind a request is of, whether or not it was among those that kinds were learnt from."""
        task, system, shape = prompt = self.prompt_of(row)
        frames = self.frames.get(prompt)
        return task, system, frames.split(row.features.last_user)[1] if frames is not None else "", shape

    def parted(self, rows: Sequence[ScanRow]) -> list[RequestTemplate]:
        """The kinds of these, the largest first, and last what is in none of them."""
        groups = defaultdict[KindKey, list[int]](list)
        for place, row in enumerate(rows):
            groups[self.of(row)].append(place)
        often = sorted((key for key in groups if len(groups[key]) >= LEAST_ROWS), key=lambda key: -len(groups[key]))
        often = often[:MOST_KINDS]
        names = _told_apart(often)
        found = [RequestTemplate(name, key, groups[key]) for name, key in zip(names, often, strict=True)]
        seldom = sorted(place for key, places in groups.items() if key not in often for place in places)
        return [*found, RequestTemplate(OTHERS, None, seldom)] if seldom else found


def masked(system: str) -> str:
    """A system prompt without what changes from day to day: numbers and ids."""
    return _NUMBERS.sub("0", _IDS.sub("0", system)).strip()


def _key(row: ScanRow) -> tuple[str, str, RequestShape]:
    return row.task, masked(row.system), row.shape


def _name(task: str, system: str, frame: str, shape: RequestShape) -> str:
    if task:
        return task
    said = _WORDS.sub(" ", _ROLES.sub("", (system or frame).strip())).strip()
    words = said if len(said) <= NAME_CHARACTERS else said[:NAME_CHARACTERS].rsplit(" ", 1)[0] + " …"
    tools = f"tools {', '.join(shape.tools[:3])}" if shape.tools else ""
    return ", ".join(filter(None, (words, "" if words else tools))) or "messages without a system prompt"


def _told_apart(kinds: Sequence[KindKey]) -> list[str]:
    """A name for each: with what is special in its shape where others have the same, and else a number."""
    plain = [_name(*key) for key in kinds]
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
