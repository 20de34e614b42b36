"""A chat answer put together from what its backend sends, whole or in pieces.

One set of rules for the record and for every surface: what one of them takes for two calls is two for all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from router.contracts.logprobs import MOST_BEYOND, within_answer
from router.wire.calls import Call, Calls, number
from router.wire.finish import finish_of
from router.wire.sse import entries_of, logprobs_of, piece_of
from router.wire.usage import TELL_USAGE, ToldUsage, merged, read_usage, tells_end, told_in

Kind = Literal["reasoning", "text", "refusal", "call"]

FIELDS: Mapping[str, str] = {"reasoning": "reasoning_content", "text": "content", "refusal": "refusal"}
"""Where a message has what the pieces of a kind say."""
_READ = frozenset({"role", "content", "refusal", "reasoning", "reasoning_content", "tool_calls", "function_call"})
_THOUGHTS = frozenset({"thinking", "reasoning", "redacted_thinking"})
_SAID_AGAIN = frozenset({"id", "name", "type", "object", "status"})
"""Fields that a message has once; any other text adds up."""


class Piece(NamedTuple):
    """Some text of an answer; of a tool call's arguments where ``kind`` is ``call``."""

    kind: Kind
    text: str
    call: Call | None = None


class Assembly:
    """Puts one choice of an answer together, the first by default. ``entries``, where it is a list, gathers all that
    is told of the tokens; ``whole`` until something came that could not be read; ``outgrown``: more was said after
    the last word of its usage."""

    def __init__(self, *, entries: list[Any] | None = None, choice: int = 0) -> None:
        self.finish_reason: str | None = None
        self.model: str | None = None
        self.usage_told: dict[str, Any] | None = None
        self.outgrown = self._counted = False
        self.service_tier: str | None = None
        self.logprobs: list[float] = []
        self.tokens = 0
        self._last: deque[Any] = deque(maxlen=MOST_BEYOND)
        self.entries = entries
        self.whole = True
        self.choice = choice
        self._texts: dict[Kind, list[str]] = {"reasoning": [], "text": [], "refusal": []}
        self._calls = Calls()
        self._strings: dict[str, list[str]] = {}
        self._more: dict[str, Any] = {}

    @property
    def usage(self) -> ToldUsage | None:
        return None if self.usage_told is None else read_usage(self.usage_told, self.service_tier)

    @property
    def beyond(self) -> int:
        """How many of the last tokens told of are none of the answer's, since they ended it."""
        if self._calls.all:
            return 0
        return len(self._last) - within_answer(self._last, "".join(self._texts["text"]), self.finish_reason)

    @property
    def message(self) -> dict[str, Any]:
        """What has come so far, as OpenAI's assistant message."""
        texts = {FIELDS[kind]: "".join(parts) for kind, parts in self._texts.items() if parts}
        more = {key: "".join(parts) for key, parts in self._strings.items()} | self._more
        if self._calls.all:
            more["tool_calls"] = [call.told() for call in self._calls.all]
        return {"role": "assistant", "content": None, **texts, **more}

    @property
    def calls(self) -> list[Call]:
        return self._calls.all

    def complete(self, call: Call) -> bool:
        return self._calls.complete(call)

    def add(self, chunk: Mapping[str, Any]) -> list[Piece]:
        """Takes one chunk, or a whole answer; gives what it adds. Malformed parts are passed over."""
        self.note(chunk)
        choices, pieces = chunk.get("choices"), []
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict):
                    index = choice.get("index")
                    if index == self.choice or (number(index) or 0) == self.choice:
                        pieces += self.add_choice(choice)
                elif choice is not None:
                    self.whole = False
        elif choices is not None or ("choices" not in chunk and chunk and not isinstance(chunk.get("usage"), dict)):
            self.whole = False  # nobody knows what it says: an error, perhaps
        return pieces

    def note(self, chunk: Mapping[str, Any]) -> None:
        """Takes what a chunk tells beside its choices."""
        self._counted = False
        if any(map(chunk.get, TELL_USAGE)):
            self._count(told_in({name: value for name, value in chunk.items() if name != "choices"}))
        if isinstance(tier := chunk.get("service_tier"), str):
            self.service_tier = tier
        if isinstance(model := chunk.get("model"), str) and model:
            self.model = model

    def add_choice(self, choice: Mapping[str, Any]) -> list[Piece]:
        """Takes a choice alone, whatever its index."""
        finish = choice.get("finish_reason")
        if isinstance(finish, str):
            self.finish_reason = finish_of(finish) or self.finish_reason
        elif finish is not None:
            self.whole = False
        if "usage" in choice:
            self._count(choice["usage"])
        tokens = self._tell(choice)
        said, delta = piece_of(choice), choice.get("delta")
        if delta and said is not delta:
            self.whole = False
        pieces = self._said(said, whole=said is not delta) if said else []
        if pieces:
            self.tokens += tokens or 1
            self.outgrow()
        return pieces

    def outgrow(self) -> None:
        """Notes that more was said than what told its usage can know of."""
        self.outgrown = not self._counted

    def go_on(self, choice: Mapping[str, Any]) -> None:
        """Takes a choice that has but a text for its content, as most chunks have."""
        self._texts["text"].append(choice["delta"]["content"])
        self.outgrown = True
        self.tokens += (self._tell(choice) if choice.get("logprobs") else 0) or 1

    def _tell(self, choice: Mapping[str, Any]) -> int:
        """Notes what is told of a choice's tokens. Of how many something was."""
        if fresh := logprobs_of(choice) if choice.get("logprobs") else []:
            self.logprobs += fresh
            self._last += entries_of(choice)
            if self.entries is not None:
                self.entries += entries_of(choice)
        return len(fresh)

    def _said(self, said: Mapping[str, Any], *, whole: bool) -> list[Piece]:
        if (role := said.get("role")) and role != "assistant":
            self.whole = False  # whoever speaks, it is not the model
        content = said.get("content")
        if isinstance(content, str):
            thought, text, refusal = "", content, ""
            if not content:
                self._texts["text"].append("")  # said, and empty
        else:
            thought, text, refusal = self._parts(content)
        thought = text_in(said.get("reasoning_content")) or text_in(said.get("reasoning")) or thought
        refusal += text_in(said.get("refusal"))
        pieces: list[Piece] = []
        said_by_kind: tuple[tuple[Kind, str], ...] = (("reasoning", thought), ("text", text), ("refusal", refusal))
        for kind, part in said_by_kind:
            if part:
                self._texts[kind].append(part)
                pieces.append(Piece(kind, part))
        calls = said.get("tool_calls")
        if not calls and (older := said.get("function_call")):
            calls = [{"function": older}]
        if calls:
            pieces += [Piece("call", added, call) for call, added in self._calls.add(calls, whole=whole)]
            self.whole = self.whole and not self._calls.lost
        if not said.keys() <= _READ:
            if "provider_metadata" in said:
                self._count(told_in(said))
            self._keep(said)
        return pieces

    def _parts(self, content: Any) -> tuple[str, str, str]:
        """(thought, text, refusal) of a content that is a list of parts. Others are kept apart."""
        found: dict[str, list[str]] = {"thought": [], "text": [], "refusal": []}
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, str):
                found["text"].append(part)
            elif isinstance(part, dict):
                kind = part.get("type")
                if isinstance(kind, str) and kind in _THOUGHTS:
                    found["thought"].append(text_in(part.get("thinking") or part.get("reasoning") or part.get("text")))
                elif kind == "refusal":
                    found["refusal"].append(text_in(part.get("refusal")))
                elif isinstance(part.get("text"), str):
                    found["text"].append(part["text"])
                else:
                    self._more.setdefault("parts", []).append(part)
            elif part is not None:
                self.whole = False
        thought, text, refusal = ("".join(parts) for parts in found.values())
        return thought, text, refusal

    def _keep(self, said: Mapping[str, Any]) -> None:
        """Fields that only some providers have: texts and lists add up, objects are filled in."""
        for key, value in said.items():
            if key in _READ or value is None:
                continue
            known = self._more.get(key)
            if isinstance(value, str) and key not in _SAID_AGAIN:
                self._strings.setdefault(key, []).append(value)
            elif isinstance(value, list):
                self._more[key] = known if isinstance(known, list) else []
                self._more[key] += value
            elif isinstance(value, dict) and isinstance(known, dict):
                more = {name: known[name] + text for name, text in value.items() if _goes_on(name, text, known)}
                known.update(value | more)
            else:
                self._more[key] = dict(value) if isinstance(value, dict) else value

    def _count(self, told: Any) -> None:
        if isinstance(told, dict) and told:
            self.usage_told = merged(self.usage_told, told)
            if tells_end(told):
                self.outgrown, self._counted = False, True


class BlockOrder:
    """Pieces of an answer so that those of a block follow each other: what belongs to none but the tool call under way
    waits for its end. A call comes with its id and name, at the latest when its text does."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._call: Call | None = None
        self._told = True
        self._waiting: list[Piece] = []
        self._left: set[Call] = set()

    def add(self, pieces: Iterable[Piece]) -> list[Piece]:
        found: list[Piece] = []
        for piece in pieces:
            if piece.call is not self._call:
                if self._waiting or not self._at_rest():
                    self._waiting.append(piece)
                    continue
                if piece.call in self._left:
                    continue
                self._go_to(piece.call)
            if piece.text:
                self._told = True
                found.append(piece)
        return found

    def rest(self) -> list[Piece]:
        """At the end: what waits, each block at once."""
        found = self._untold()
        blocks: dict[tuple[Kind, Call | None], list[Piece]] = {}
        for piece in self._waiting:
            blocks.setdefault((piece.kind, piece.call), []).append(piece)
        self._waiting = []
        for first, *others in blocks.values():
            if first.call in self._left:
                continue
            self._go_to(first.call)
            text = "".join([first.text, *(piece.text for piece in others)])
            if text:
                self._told = True
                found.append(first._replace(text=text))
            found += self._untold()
        self._go_to(None)
        return found

    def _at_rest(self) -> bool:
        return self._call is None or (self._told and self._assembly.complete(self._call))

    def _go_to(self, call: Call | None) -> None:
        if self._call is not None and self._call is not call:
            self._left.add(self._call)
        self._call, self._told = call, call is None

    def _untold(self) -> list[Piece]:
        """A call under way that has no text."""
        if self._told or self._call is None:
            return []
        self._told = True
        return [Piece("call", self._call.text, self._call)]


def _goes_on(name: str, text: Any, known: Mapping[str, Any]) -> bool:
    """Whether a field of an object is a further piece of what was said aloud."""
    return name == "transcript" and isinstance(text, str) and isinstance(known.get(name), str)


def assembled(choice: Mapping[str, Any]) -> Assembly:
    """One choice of a whole answer."""
    assembly = Assembly()
    assembly.add_choice(choice)
    return assembly


def text_in(value: Any) -> str:
    """Text as servers give it: a string, or a list of parts."""
    if isinstance(value, list):
        value = "".join(p["text"] for p in value if isinstance(p, dict) and isinstance(p.get("text"), str))
    return value if isinstance(value, str) else ""
