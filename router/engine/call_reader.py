"""An answer's text, as it comes, parted into what is said and the tools that are called, in chat's words."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from router.engine.calls import CallForm
from router.engine.text import overlap

SAYING, NAMING, GIVING, BETWEEN = range(4)


class CallReader:
    """Reads one answer that is held to ``form``. ``message`` is all of it so far."""

    def __init__(self, form: CallForm) -> None:
        self._form = form
        self._state, self._rest = SAYING, ""
        self._depth, self._quoted, self._escaped = 0, False, False
        self._said: list[str] = []
        self.calls: list[dict[str, Any]] = []

    def push(self, text: str) -> list[dict[str, Any]]:
        """What the text adds: deltas of chat's kind, with a ``content`` or a part of a call."""
        self._rest += text
        return list(self._read())

    def flush(self) -> list[dict[str, Any]]:
        """What was held back, when nothing follows. A call that was cut before its name was whole is none."""
        rest, self._rest = self._rest, ""
        return [self._say(rest)] if self._state == SAYING and rest else []

    @property
    def message(self) -> dict[str, Any]:
        """The assistant's message."""
        said = "".join(self._said)
        if not self.calls:
            return {"role": "assistant", "content": said, "refusal": None}
        return {"role": "assistant", "content": said or None, "refusal": None, "tool_calls": self.calls}

    def _read(self) -> Iterator[dict[str, Any]]:
        while self._rest:
            before = self._state, len(self._rest)
            yield from (self._saying, self._naming, self._giving, self._between)[self._state]()
            if before == (self._state, len(self._rest)):
                return

    def _saying(self) -> Iterator[dict[str, Any]]:
        """Holds back what may be the beginning of a call, and white space, which none has before it."""
        at = self._rest.find(self._form.opening)
        if at >= 0:
            said, self._rest = self._rest[:at].rstrip(), self._rest[at + len(self._form.opening) :]
            self._state = NAMING
        else:
            keep = overlap(self._rest, self._form.opening)
            said = self._rest[: len(self._rest) - keep].rstrip()
            self._rest = self._rest[len(said) :]
        if said:
            yield self._say(said)

    def _say(self, text: str) -> dict[str, Any]:
        self._said.append(text)
        return {"content": text}

    def _naming(self) -> Iterator[dict[str, Any]]:
        name, found, rest = self._rest.partition(self._form.between)
        if found:
            self._rest, self._state = rest, GIVING
            call = {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function"}
            self.calls.append({**call, "function": {"name": name, "arguments": ""}})
            yield self._part({**call, "function": {"name": name, "arguments": ""}})

    def _giving(self) -> Iterator[dict[str, Any]]:
        """Arguments, up to where their object ends."""
        end = self._end()
        given, self._rest = self._rest[:end], self._rest[end:]
        self.calls[-1]["function"]["arguments"] += given
        yield self._part({"function": {"arguments": given}})

    def _part(self, part: dict[str, Any]) -> dict[str, Any]:
        return {"tool_calls": [{"index": len(self.calls) - 1, **part}]}

    def _end(self) -> int:
        for at, character in enumerate(self._rest):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped, self._quoted = character == "\\", character != '"'
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self._depth, self._state = 0, BETWEEN
                    return at + 1
        return len(self._rest)

    def _between(self) -> Iterator[dict[str, Any]]:
        then = self._form.then
        if then is not None and self._rest.startswith(then):
            self._rest, self._state = self._rest[len(then) :], NAMING
        yield from ()
