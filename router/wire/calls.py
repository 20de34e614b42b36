"""Tool calls as they come: whole or in pieces, numbered or not, named once or each time.

What OpenAI sends is plain: a call's first piece has its index, id and name, the others index and text. Others send all
parallel calls under index 0 with ids of their own, or number none; repeat id and name with each piece, or send them
empty then; send arguments as an object, or none where there are none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

MOST = 128
"""Calls in one answer, as OpenAI has it; more is passed over."""
_READ = frozenset({"index", "id", "type", "function", "custom"})
_READ_INSIDE = frozenset({"name", "arguments", "input"})
_FREE_LOOKS_BYTES = 2**16


@dataclass(slots=True, eq=False)
class Call:
    """One call. ``type`` is chat's: ``function``, ``custom``, or a provider's own; ``more`` and ``inside``: what else
    came with it and with its name, such as Gemini's thought signatures; ``own_id``: where its own is none, or
    another's too."""

    id: str | None = None
    type: str = "function"
    name: str = ""
    written: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    inside: dict[str, Any] = field(default_factory=dict)
    own_id: str | None = None
    size: int = 0

    @property
    def is_blank(self) -> bool:
        """Whether it is a function that got no arguments so far."""
        return self.type != "custom" and not any(map(str.strip, self.written))

    @property
    def text(self) -> str:
        """Its arguments (a custom tool's input) so far; a function without any has an empty object."""
        return "{}" if self.is_blank else "".join(self.written)

    def told(self, text: str | None = None) -> dict[str, Any]:
        """The call in chat's form, with all of its ``text`` unless another one is given."""
        head = {"id": self.own_id or self.id, "type": self.type}
        return head | self.inner(self.text if text is None else text, name=self.name, **self.inside) | self.more

    def inner(self, text: str, **more: Any) -> dict[str, Any]:
        """Some of it in chat's form: what stands under its type."""
        return (
            {"custom": {**more, "input": text}} if self.type == "custom" else {"function": {**more, "arguments": text}}
        )

    def add(self, text: str) -> None:
        if text:
            self.written.append(text)
            self.size += len(text)


class Calls:
    """The calls of one answer, in order. ``lost``: something came that belongs to none of them."""

    def __init__(self) -> None:
        self.all: list[Call] = []
        self.lost = False
        self._at: dict[int, Call] = {}
        self._by_id: dict[str, Call] = {}
        self._looked = 0
        self._total = 0

    def add(self, parts: Any, *, whole: bool = False) -> list[tuple[Call, str]]:
        """Takes a message's ``tool_calls``, each a call of its own (``whole``), or a chunk's; gives each call that
        they belong to with the text that was added to it."""
        found = []
        parts = parts if isinstance(parts, list) else [parts]
        for n, part in enumerate(parts):
            if not isinstance(part, dict):
                self.lost = self.lost or whole or part is not None
                continue
            index = number(part.get("index"))
            if index is None and len(parts) > 1:
                index = n
            if (added := self._take(part, index, whole)) is not None:
                found.append(added)
        return found

    def complete(self, call: Call) -> bool:
        """Whether a call's arguments are all there. Looks at no text more than a few times, however it grows."""
        if not call.written or not call.written[-1].rstrip().endswith("}"):
            return False
        if self._looked + call.size > 4 * self._total + _FREE_LOOKS_BYTES:
            return False
        self._looked += call.size
        try:
            return isinstance(orjson.loads("".join(call.written)), dict)
        except orjson.JSONDecodeError:
            return False

    def _take(self, part: dict[str, Any], index: int | None, whole: bool) -> tuple[Call, str] | None:
        kind = part.get("type")
        inner = part.get("custom") if isinstance(part.get("custom"), dict) else part.get("function")
        inner = inner if isinstance(inner, dict) else {}
        id_, name = text_of(part.get("id")), text_of(inner.get("name"))
        if not inner and not id_:
            self.lost = self.lost or whole
            return None  # it says nothing
        given = inner.get("input" if inner is part.get("custom") else "arguments")
        text = self._text(given)
        call = None if whole else self._known(index, id_, name)
        if call is not None and self._begins(call, index, id_, name, text):
            if id_ and id_ == call.id and text.strip() == call.text.strip():
                return call, ""  # all of it once more
            call = None
        if call is None:
            if len(self.all) >= MOST:
                self.lost = True
                return None
            call = Call(type="custom" if inner is part.get("custom") else "function")
            self.all.append(call)
        elif not isinstance(given, str) and call.written:
            text = ""  # an object is the whole of them
        if text == "null" and call.type == "function" and not call.written:
            text = ""
        self._note(call, index, id_, name)
        call.type = kind if isinstance(kind, str) and kind else call.type
        call.more |= {k: v for k, v in part.items() if k not in _READ and v is not None}
        call.inside |= {k: v for k, v in inner.items() if k not in _READ_INSIDE and v is not None}
        self._total += len(text)
        call.add(text)
        return call, text

    def _known(self, index: int | None, id_: str, name: str) -> Call | None:
        """The call that a piece goes on with, unless it begins another."""
        if index is not None:
            return self._at.get(index)
        last = self.all[-1] if self.all else None
        if id_:
            return self._by_id.get(id_) or (None if name else last)  # some make up an id for each piece
        return last

    def _begins(self, call: Call, index: int | None, id_: str, name: str, text: str) -> bool:
        """Whether a piece that seems to be of ``call`` is the first of another one: no piece of one lacks a name,
        and what is complete goes on with none."""
        if not name:
            return False
        other = bool(id_ and call.id and id_ != call.id)
        if call.name and name != call.name:
            return other or bool(call.written) or (index is None and not name.startswith(call.name))
        if other:
            return not call.written or self.complete(call)
        return text.lstrip().startswith("{") and self.complete(call)

    def _note(self, call: Call, index: int | None, id_: str, name: str) -> None:
        if id_ and not call.id:
            call.id = id_
            self._by_id.setdefault(id_, call)
        if index is not None:
            self._at[index] = call
        if name and name != call.name and not call.written:  # a name in pieces, or all of it each time
            call.name = name if name.startswith(call.name) else call.name + name

    def _text(self, given: Any) -> str:
        if not given:
            return ""
        if isinstance(given, str):
            return given
        try:
            return orjson.dumps(given).decode()
        except TypeError:  # nested too deeply
            self.lost = True
            return ""


def number(value: Any) -> int | None:
    """An index as servers write it, where it can be one."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 4:
        value = int(value)
    return value if type(value) is int and 0 <= value < MOST else None


def text_of(value: Any) -> str:
    """A name or an id; some servers count their ids."""
    if isinstance(value, str):
        return value
    return str(value) if type(value) is int else ""
