"""Text as it reads once what stands for a character is read as that character: JSON's escapes, however often they were
escaped again, and a URL's. Standard library only.

It is no parser: what was cut off in the middle, or stands in prose, reads alike.
"""

from __future__ import annotations

import re
from bisect import bisect_right

MOST_ROUNDS = 8
_SAID = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ESCAPE = re.compile(r"(?<!\\)\\++(?:u([0-9a-fA-F]{4})|([\"/bfnrt]))|%([2-7][0-9a-fA-F])")


class EscapedText:
    """``text`` is what was written, with every escape read, and ``span`` tells where a part of it was written."""

    __slots__ = ("_rounds", "text")

    def __init__(self, written: str) -> None:
        self.text = written
        self._rounds: list[tuple[list[int], list[int]]] = []
        while len(self._rounds) < MOST_ROUNDS and self._read():
            pass

    def __bool__(self) -> bool:
        """Whether there was any."""
        return bool(self._rounds)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where the characters from ``start`` to ``end`` were written: escapes whole."""
        for here, there in reversed(self._rounds):
            start, end = _moved(start, here, there), _moved(end, here, there)
        return start, end

    def _read(self) -> bool:
        """One layer of escapes, if there is one."""
        here, there, pieces = [0], [0], list[str]()
        length = done = 0
        for found in _ESCAPE.finditer(self.text):
            start, end = found.span()
            pieces += (self.text[done:start], _character(*found.groups()))
            length += start - done
            here += (length, length + 1)
            there += (start, end)
            length, done = length + 1, end
        if not pieces:
            return False
        self.text = "".join((*pieces, self.text[done:]))
        self._rounds.append((here, there))
        return True


def _character(code: str | None, name: str | None, percent: str | None) -> str:
    return chr(int(code or percent or "", 16)) if name is None else _SAID.get(name, name)


def _moved(place: int, here: list[int], there: list[int]) -> int:
    """The place before this layer was read: as far behind the last known place as it is now."""
    at = bisect_right(here, place) - 1
    return there[at] + place - here[at]
