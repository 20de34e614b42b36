"""Kinds of requests: those of one template, by a name that many of them share word for word."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

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
_ROLES = re.compile(r"^(?:you are |act as |your task is to |please )(?:an? |the )?", re.IGNORECASE)


@dataclass(slots=True)
class RequestTemplate:
    """A kind of requests; ``rows`` are places among the sample's, oldest first."""

    name: str
    shape: RequestShape
    rows: list[int]


def kinds_of(rows: Sequence[ScanRow]) -> list[RequestTemplate]:
    """The kinds, the largest first, and last what is in none of them."""
    coarse = defaultdict[tuple[str, str, RequestShape], list[int]](list)
    for place, row in enumerate(rows):
        coarse[row.task, masked(row.system), row.shape].append(place)
    coarse = _joined(coarse, rows)
    groups = list[tuple[str, RequestShape, list[int]]]()
    seldom: list[int] = []
    for (task, system, shape), places in coarse.items():
        for frame, some in _framed(places, rows):
            if len(some) < LEAST_ROWS:
                seldom += some
            else:
                groups.append((_name(task, system, frame, shape), shape, some))
    groups.sort(key=lambda group: -len(group[2]))
    seldom += [place for *_, places in groups[MOST_KINDS:] for place in places]
    found = [RequestTemplate(name, shape, some) for name, shape, some in _told_apart(groups[:MOST_KINDS])]
    return [*found, RequestTemplate(OTHERS, RequestShape(), sorted(seldom))] if seldom else found


def masked(system: str) -> str:
    """A system prompt without what changes from day to day: numbers and ids."""
    return _NUMBERS.sub("0", _IDS.sub("0", system)).strip()


def _joined(
    coarse: dict[tuple[str, str, RequestShape], list[int]], rows: Sequence[ScanRow]
) -> defaultdict[tuple[str, str, RequestShape], list[int]]:
    """System prompts that are seldom the same as a whole (a user's name, a document in them) by how they begin."""
    found = defaultdict[tuple[str, str, RequestShape], list[int]](list)
    single = {key: places for key, places in coarse.items() if len(places) < LEAST_ROWS and key[1]}
    frames = Templates.fit([key[1] for key in single])
    for key, places in coarse.items():
        task, system, shape = key
        found[(task, frames.split(system)[1] or system, shape) if key in single else key] += places
    for places in found.values():
        places.sort()
    return found


def _framed(places: list[int], rows: Sequence[ScanRow]) -> list[tuple[str, list[int]]]:
    """The same rows by the frame that their messages share."""
    texts = [rows[place].features.last_user for place in places]
    frames = Templates.fit(texts) if len(places) >= LEAST_ROWS else Templates()
    found = defaultdict[str, list[int]](list)
    for place, text in zip(places, texts, strict=True):
        found[frames.split(text)[1]].append(place)
    return list(found.items())


def _name(task: str, system: str, frame: str, shape: RequestShape) -> str:
    if task:
        return task
    said = _WORDS.sub(" ", _ROLES.sub("", (system or frame).strip())).strip()
    words = said if len(said) <= NAME_CHARACTERS else said[:NAME_CHARACTERS].rsplit(" ", 1)[0] + " …"
    tools = f"tools {', '.join(shape.tools[:3])}" if shape.tools else ""
    return ", ".join(filter(None, (words, "" if words else tools))) or "messages without a system prompt"


def _told_apart(groups: Sequence[tuple[str, RequestShape, list[int]]]) -> list[tuple[str, RequestShape, list[int]]]:
    """Each kind by a name of its own: with what is special in its shape, and else a number."""
    found, times, seen = [], Counter(name for name, *_ in groups), Counter[str]()
    for name, shape, places in groups:
        about = [
            *(["going on"] if shape.continued else []),
            *(["with pictures"] if shape.images else []),
            *([f"tools {', '.join(shape.tools[:3])}"] if shape.tools and "tools" not in name else []),
            *([shape.form] if shape.form else []),
        ]
        whole = f"{name} ({'; '.join(about)})" if about and times[name] > 1 else name
        seen[whole] += 1
        found.append((f"{whole} #{seen[whole]}" if seen[whole] > 1 else whole, shape, places))
    return found
