"""Text as it reads once what stands for a character is read as that character: JSON's escapes, however often they were
escaped again, and a URL's. Standard library only.

It is no parser: what was cut off in the middle, or stands in prose, reads alike.
"""

from __future__ import annotations

import re
import time
from array import array
from bisect import bisect_right
from collections.abc import Iterator

MOST_ROUNDS = 8
PIECE_CHARS = 65_536
LONGEST_CHARS = 6
"""Of an escape, but for its backslashes."""
_SAID = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ESCAPE = re.compile(r"(?<!\\)\\++(?:u([0-9a-fA-F]{4})|([\"/bfnrt]))|%([2-7][0-9a-fA-F])")


class EscapedText:
    """``text`` is what was written, with every escape read, and ``span`` tells where a part of it was written."""

    __slots__ = ("_rounds", "text")

    def __init__(self, written: str) -> None:
        self.text = written
        self._rounds: list[tuple[array[int], array[int]]] = []
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
        here, there, read, pieces = array("Q", [0]), array("Q", [0]), list[str](), list[str]()
        length = done = 0
        for found in _escapes(self.text):
            start, end = found.span()
            pieces += (self.text[done:start], _character(*found.groups()))
            length += start - done
            here.extend((length, length + 1))
            there.extend((start, end))
            length, done = length + 1, end
            if len(pieces) > PIECE_CHARS:
                read.append("".join(pieces))
                pieces.clear()
        if len(here) == 1:
            return False
        self.text = "".join((*read, *pieces, self.text[done:]))
        self._rounds.append((here, there))
        return True


def _escapes(text: str) -> Iterator[re.Match[str]]:
    """All of them, looked for piece by piece, since each search holds the interpreter; one that a piece's end cuts is
    looked for again from its first backslash, in a longer piece."""
    at, size = 0, PIECE_CHARS
    while at < len(text):
        end = at + size
        if (found := _ESCAPE.search(text, at, end)) is not None:
            yield found
            at, size = found.end(), PIECE_CHARS
            continue
        if end >= len(text):
            return
        behind = end - LONGEST_CHARS
        while behind > at and text[behind - 1] == "\\":
            behind -= 1
        at, size = behind, PIECE_CHARS if behind > at else 2 * size
        time.sleep(0)  # lets the event loop in


def _character(code: str | None, name: str | None, percent: str | None) -> str:
    return chr(int(code or percent or "", 16)) if name is None else _SAID.get(name, name)


def _moved(place: int, here: array[int], there: array[int]) -> int:
    """The place before this layer was read: as far behind the last known place as it is now."""
    at = bisect_right(here, place) - 1
    return there[at] + place - here[at]
