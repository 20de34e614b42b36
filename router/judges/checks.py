"""One value held against one schema, in bounded work, whatever either says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

import orjson

MOST_STEPS = 30_000
"""Some 20 ms of work; a table of six hundred rows with ten columns takes all of it."""
MOST_DEPTH = 100
MOST_REFERENCE_CHARS = 200
CHARS_A_STEP = 100

Told = bool | None
"""True: valid, False: not, None: that cannot be told."""
Test = Callable[["Check", Any, Any, Mapping[str, Any], int], Told]
"""(the check, the keyword's value, the value asked about, the schema around, its depth) -> what it says."""


class TooManySteps(Exception):
    """The check would take more steps than it may."""


class Check:
    """One value against one schema. What references were found to say is kept by the two nodes' identity, so that
    work is at most the one's size times the other's."""

    def __init__(self, root: Mapping[str, Any], keywords: Mapping[str, Test]) -> None:
        self._root, self._keywords, self._left = root, keywords, MOST_STEPS
        self._known: dict[tuple[int, int], Told] = {}

    def node(self, schema: Any, value: Any, depth: int) -> Told:
        """``depth`` is how deep this lies in the check, nested schemas and references alike."""
        if depth > MOST_DEPTH:
            raise TooManySteps
        if not isinstance(schema, dict):
            self.spend(1)
            return schema if isinstance(schema, bool) else None
        self.spend(1 + len(schema))
        if "$id" in schema and schema is not self._root:
            return None  # its references mean something else
        told: Told = True
        for keyword, wanted in schema.items():
            if (test := self._keywords.get(keyword)) is not None:
                found = test(self, wanted, value, schema, depth + 1)
                if found is False:
                    return False
                told = told and found
        return told

    def spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise TooManySteps

    def reference(self, wanted: Any, value: Any, depth: int) -> Told:
        self.spend(5)
        target = referred(self._root, wanted)
        if target is None:
            return None
        pair = (id(target), id(value))  # both live as long as the check
        if pair not in self._known:
            self._known[pair] = None  # it leads to itself
            self._known[pair] = self.node(target, value, depth)
        return self._known[pair]

    def every(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> Told:
        """Whether each (schema, value) fits."""
        told: Told = True
        for schema, value in pairs:
            found = self.node(schema, value, depth)
            if found is False:
                return False
            told = told and found
        return told

    def count(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> tuple[int, int]:
        """How many (schema, value) surely fit, and how many perhaps do."""
        sure = perhaps = 0
        for schema, value in pairs:
            found = self.node(schema, value, depth)
            sure += found is True
            perhaps += found is not False
        return sure, perhaps

    def key(self, value: Any) -> bytes:
        """The same for equal values; paid for by its size."""
        self.spend(5 * _size(value, self._left))
        return canonical(value)


def _size(value: Any, most: int) -> int:
    """The steps that it takes to read all of a value, counted no further than ``most``."""
    size, unread = 0, [value]
    while unread and size <= most:
        found = unread.pop()
        size += 1
        if isinstance(found, str):
            size += len(found) // CHARS_A_STEP
        elif isinstance(found, dict | list):
            if len(found) > most:
                return most + 1
            unread += found
            unread += found.values() if isinstance(found, dict) else ()
    return size


def canonical(value: Any) -> bytes:
    """JSON that is the same for equal values: keys in order, whole numbers as integers. True is not 1.

    Raises:
        orjson.JSONEncodeError, RecursionError: it is nested too deep.
    """
    return orjson.dumps(_whole(value), option=orjson.OPT_SORT_KEYS)


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def referred(root: object, reference: object) -> Any:
    """What a reference within a schema leads to, a JSON pointer; None where that is nothing."""
    if not isinstance(reference, str) or len(reference) > MOST_REFERENCE_CHARS:
        return None
    if reference != "#" and not reference.startswith("#/"):
        return None
    found: Any = root
    for step in reference.split("/")[1:]:
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            found = found.get(key) if isinstance(found, Mapping) else None
    return found
