"""A chat answer that is a little wrong, made one that OpenAI's clients read as it was meant.

They believe what they get: pieces of calls that share an index are of one call, all text adds up, and so does a role
that is told twice; what is missing is an exception of theirs. Where an answer is otherwise than they expect, it is told
anew, as the assembly understood it. What is right stays as it came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

from router.wire.assembly import FIELDS, Assembly, Piece
from router.wire.calls import Call, number
from router.wire.finish import finish_of
from router.wire.form import (
    PROMISES,
    AnswerTerms,
    Head,
    are_probable,
    counted,
    fresh_head,
    head_of,
    is_counted,
    is_headed,
    own_id,
    probable,
)
from router.wire.halves import TEXTS
from router.wire.sse import piece_of, says_something
from router.wire.usage import TELL_USAGE

_TOLD_ANEW = TEXTS | {"role", "tool_calls", "function_call"}
_OF_CHOICE = frozenset({"index", "delta", "message", "finish_reason", "logprobs"})


@dataclass(slots=True)
class _Told:
    """What a client knows of a call."""

    index: int
    name: str
    more: set[str]


@dataclass(slots=True)
class _Choice:
    """One choice of a stream: ``assembly`` as it came, the rest as it was told. ``listed``: how many entries each
    list has that only some providers send; ``older``: it calls a function, which is no tool."""

    assembly: Assembly
    role: bool = False
    ended: bool = False
    older: bool = False
    calls: dict[Call, _Told] = field(default_factory=dict)
    listed: dict[str, int] = field(default_factory=dict)


class Repair:
    """One stream's. ``first`` is the assembly of its first choice, which the chunks are put into."""

    def __init__(self, first: Assembly, terms: AnswerTerms) -> None:
        self._first, self._terms = first, terms
        self._choices: dict[int, _Choice] = {}
        self._head: Head = {}
        self._counted = False

    @property
    def over(self) -> bool:
        """Whether each choice that was asked for has ended."""
        return all((known := self._choices.get(n)) and known.ended for n in range(self._terms.choices))

    @property
    def others(self) -> list[Assembly]:
        """What choices beside the first have said."""
        return [known.assembly for known in self._choices.values() if known.assembly is not self._first]

    def take(self, chunk: dict[str, Any]) -> bool:
        """Takes a chunk, and tells it anew where that must be (changes ``chunk``). Whether it did."""
        if (choice := self._goes_on(chunk)) is not None:
            self._first.note(chunk)
            self._first.go_on(choice)
            return False
        choices = chunk.get("choices")
        if type(choices) is not list:
            self._first.add(chunk)
            self._headed(chunk)
            chunk["choices"] = []
            return True
        self._first.note(chunk)  # before a count that cannot be is told as 0
        changed = self._headed(chunk)
        fresh = []
        for n, choice in enumerate(choices):
            if isinstance(choice, dict):
                at = n if (index := number(choice.get("index"))) is None else index
                if (found := self._taken(at, choice)) is not None:
                    fresh.append(found)
            elif choice is not None:
                self._first.whole = False
        if [*map(id, fresh)] == [*map(id, choices)]:
            return changed
        chunk["choices"] = fresh
        return True

    def _goes_on(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        """The choice of a chunk that is as most are: named, and with no more than text for the first choice, whose
        role was told before. Of such a one the rules below say that it is right, and take several times as long."""
        choices = chunk.get("choices")
        if type(choices) is not list or len(choices) != 1 or type(choice := choices[0]) is not dict:
            return None
        get = choice.get
        if type(delta := get("delta")) is not dict or len(delta) != 1 or type(text := delta.get("content")) is not str:
            return None
        if not text or type(at := get("index")) is not int or at or get("finish_reason") is not None:
            return None
        if (known := self._choices.get(0)) is None or known.ended:
            return None
        if get("usage") is not None or any(map(chunk.get, TELL_USAGE)) or not is_headed(chunk):
            return None
        logprobs = get("logprobs")
        return choice if logprobs is None or are_probable(logprobs) else None

    def rest(self) -> list[dict[str, Any]]:
        """The chunks that are missing at the end."""
        found: list[dict[str, Any]] = []
        for at, known in self._choices.items():
            if not known.ended:
                finish = self._terms.finish("stop", bool(known.assembly.calls), older=known.older)
                found.append({"choices": [self._anew(known, at, {}, (), finish)]})
        if self._terms.usage and not self._counted and (usage := counted(self._first.usage_told)):
            found.append({"choices": [], "usage": usage})
        return [self._head | chunk for chunk in found]

    def _headed(self, chunk: dict[str, Any]) -> bool:
        """Gives a chunk what names an answer, and counts that are numbers. Whether one was missing."""
        changed, usage = False, chunk.get("usage")
        if not is_headed(chunk):
            chunk |= head_of(chunk, self._head or fresh_head("chat.completion.chunk", self._terms.model))
            changed = True
        if not self._head:
            self._head = {key: chunk[key] for key in ("id", "object", "created", "model")}
        if usage is not None:
            self._counted = True
            if not is_counted(usage):  # what was told before it counts too
                chunk["usage"] = usage = counted(self._first.usage_told)
                self._counted, changed = usage is not None, True
        return changed

    def _taken(self, at: int, choice: dict[str, Any]) -> dict[str, Any] | None:
        """The choice as it is told. None where nobody asked for it, or it has ended: what is said then is no answer
        that anybody looked at, but counts may be there."""
        known = self._choices.get(at)
        if not 0 <= at < self._terms.choices or (known is not None and known.ended):
            self._first.note(choice)
            if says_something({"choices": [{**choice, "finish_reason": None}]}):
                self._first.whole = False
            return None
        if known is None:
            known = self._choices[at] = _Choice(Assembly(choice=at) if at else self._first)
        assembly, told = known.assembly, choice.get("finish_reason")
        if (pieces := assembly.add_choice(choice)) and at:
            self._first.outgrow()
        known.older = known.older or (self._terms.older and _calls_function(piece_of(choice)))
        finish = None if told is None else self._terms.finish(told, bool(assembly.calls), older=known.older)
        if finish is not None:
            assembly.finish_reason = finish
            if finish_of(told) in PROMISES and not assembly.calls:
                assembly.whole = False
        if finish == told and choice.get("index") == at and self._is_right(known, choice, pieces):
            for key, value in choice["delta"].items():
                _placed(known, key, value)
            return choice
        return self._anew(known, at, choice, pieces, finish)

    def _is_right(self, known: _Choice, choice: Mapping[str, Any], pieces: Sequence[Piece]) -> bool:
        delta, ended = choice.get("delta"), choice.get("finish_reason") is not None
        if type(delta) is not dict or not _is_plain(delta, known.listed) or not are_probable(choice.get("logprobs")):
            return False
        if delta.get("role") != (None if known.role else "assistant"):
            return False
        fresh: dict[Call, _Told] | None = {}
        if calls := delta.get("tool_calls"):
            fresh = _fresh(known, calls, [(p.call, p.text) for p in pieces if p.call is not None])
        if fresh is None:
            return False
        if ended and any(call.is_blank or call not in known.calls | fresh for call in known.assembly.calls):
            return known.older
        known.calls |= fresh
        known.role, known.ended = True, known.ended or ended
        return True

    def _anew(
        self, known: _Choice, at: int, choice: Mapping[str, Any], pieces: Sequence[Piece], finish: str | None
    ) -> dict[str, Any]:
        said = piece_of(choice)
        delta: dict[str, Any] = {} if known.role else {"role": "assistant"}
        delta |= _texts(said, pieces)
        delta |= {k: _placed(known, k, v) for k, v in said.items() if k not in _TOLD_ANEW and v is not None}
        if known.older and _calls_function(said):
            delta["function_call"] = _function_call(said["function_call"], pieces)
        elif not known.older and (parts := _parts(known, pieces, ended=finish is not None)):
            delta["tool_calls"] = parts
        known.role, known.ended = True, known.ended or finish is not None
        rest = {k: v for k, v in choice.items() if k not in _OF_CHOICE}
        logprobs = {"logprobs": probable(choice["logprobs"])} if "logprobs" in choice else {}
        return {**rest, "index": at, "delta": delta, **logprobs, "finish_reason": finish}


def mended(found: dict[str, Any], said: Sequence[Assembly], terms: AnswerTerms) -> bool:
    """Tells a whole answer anew where that must be (changes ``found``); ``said`` are its choices. Whether it did."""
    choices = [_whole(n, *both, terms) for n, both in enumerate(zip(found["choices"], said, strict=True))]
    changed = any(new is not old for new, old in zip(choices, found["choices"], strict=True))
    found["choices"] = choices
    if not is_headed(found):
        found |= head_of(found, fresh_head("chat.completion", terms.model))
        changed = True
    usage = found.get("usage") or said[0].usage_told
    if usage is not found.get("usage") or not (usage is None or is_counted(usage)):
        found["usage"] = counted(usage)
        changed = True
    return changed


def _whole(n: int, choice: dict[str, Any], said: Assembly, terms: AnswerTerms) -> dict[str, Any]:
    told, given, calls = choice.get("finish_reason"), choice["message"], said.calls
    older = terms.older and _calls_function(given)
    for call in calls:
        own_id(call, calls[: calls.index(call)])
    finish = terms.finish(told, bool(calls), older=older)
    if finish is not None:
        said.finish_reason = finish
        said.whole = said.whole and (bool(calls) or finish_of(told) not in PROMISES)
    finish = finish or terms.finish("stop", bool(calls), older=older)
    right = finish == told and choice.get("index") == n and are_probable(choice.get("logprobs"))
    if right and not given.get("function_call") and _is_message(given, said):
        return choice
    message = said.message
    if older and (called := message.pop("tool_calls", None)):
        message["function_call"] = called[0]["function"]
    if isinstance(thought := given.get("reasoning"), str):
        message["reasoning"] = thought
    rest = {k: v for k, v in choice.items() if k not in _OF_CHOICE}
    logprobs = {"logprobs": probable(choice["logprobs"])} if "logprobs" in choice else {}
    return {**rest, "index": n, "message": message, **logprobs, "finish_reason": finish}


def _is_message(given: Mapping[str, Any], said: Assembly) -> bool:
    """Whether a message is told as OpenAI tells one."""
    if given.get("role") != "assistant" or any(type(given.get(key, "")) not in (str, NoneType) for key in TEXTS):
        return False
    parts = given.get("tool_calls") or []
    if type(parts) is not list or len(parts) != len(said.calls):
        return False
    return all(
        type(part) is dict and {k: v for k, v in part.items() if k != "index"}.items() >= call.told().items()
        for part, call in zip(parts, said.calls, strict=True)
    )


def _is_plain(delta: Mapping[str, Any], listed: Mapping[str, int]) -> bool:
    """Whether its texts are texts, and lists that only some providers send, and that go on with ones told before, have
    places for their entries."""
    for key, value in delta.items():
        if key in TEXTS:
            if type(value) not in (str, NoneType):
                return False
        elif key == "function_call":
            if value is not None:
                return False
        elif key != "tool_calls" and type(value) is list and key in listed and not all(map(_has_place, value)):
            return False
    return True


def _fresh(known: _Choice, parts: Any, calls: Sequence[tuple[Call, str]]) -> dict[Call, _Told] | None:
    """The calls that a chunk's pieces begin; None where these do not say what the assembly understood."""
    if type(parts) is not list or len(parts) != len(calls) or len({call for call, _ in calls}) != len(calls):
        return None
    fresh: dict[Call, _Told] = {}
    for part, (call, text) in zip(parts, calls, strict=True):
        kind, key = ("custom", "input") if call.type == "custom" else ("function", "arguments")
        inner = part.get(kind) if type(part) is dict else None
        if type(inner) is not dict or inner.get(key) != text:
            return None
        name = inner.get("name")
        if (told := known.calls.get(call)) is None:
            own_id(call, (*known.calls, *fresh))
            told = fresh[call] = _Told(len(known.calls) + len(fresh), call.name, {*call.more})
            right = name == call.name and bool(name) and part.get("id") == (call.own_id or call.id)
            right = right and part.get("type") == call.type
        else:
            right = name is None and part.get("id") is None and part.get("type", call.type) == call.type
        if not right or part.get("index") != told.index:
            return None
    return fresh


def _parts(known: _Choice, pieces: Sequence[Piece], *, ended: bool) -> list[dict[str, Any]]:
    """Pieces of calls as they are told, one of each call; at the end with what is missing."""
    texts: dict[Call, str] = {}
    for piece in pieces:
        if piece.call is not None:
            texts[piece.call] = texts.get(piece.call, "") + piece.text
    if ended:
        texts |= {call: texts.get(call, "") for call in known.assembly.calls}
    parts = (_part(known, call, text, ended=ended) for call, text in texts.items())
    return [part for part in parts if part is not None]


def _part(known: _Choice, call: Call, text: str, *, ended: bool) -> dict[str, Any] | None:
    """One piece of a call. Of one that is told for the first time that is all that there is; where its name is still
    to come, nothing."""
    if (told := known.calls.get(call)) is None:
        if not (ended or text or call.name):
            return None
        own_id(call, known.calls)
        told = known.calls[call] = _Told(len(known.calls), call.name, {*call.more})
        return {"index": told.index, **call.told(None if ended else "".join(call.written))}
    more = {key: value for key, value in call.more.items() if key not in told.more}
    name = {"name": call.name.removeprefix(told.name)} if call.name != told.name else {}
    told.name, told.more = call.name, {*call.more}
    if ended and call.is_blank:
        text = call.text
    return {"index": told.index, **call.inner(text, **name), **more} if text or name or more else None


def _texts(said: Mapping[str, Any], pieces: Sequence[Piece]) -> dict[str, str]:
    texts = {"content": ""} if said.get("content") == "" else {}
    for kind, text, call in pieces:
        if call is None:
            texts[FIELDS[kind]] = texts.get(FIELDS[kind], "") + text
    if isinstance(said.get("reasoning"), str) and not said.get("reasoning_content") and "reasoning_content" in texts:
        texts["reasoning"] = texts.pop("reasoning_content")
    return texts


def _calls_function(said: Mapping[str, Any]) -> bool:
    return isinstance(said.get("function_call"), dict) and not said.get("tool_calls")


def _function_call(given: Mapping[str, Any], pieces: Sequence[Piece]) -> dict[str, str]:
    name = {"name": given["name"]} if isinstance(given.get("name"), str) and given["name"] else {}
    return {**name, "arguments": "".join(piece.text for piece in pieces if piece.call is not None)}


def _has_place(entry: Any) -> bool:
    return type(entry) is not dict or type(entry.get("index")) is int


def _placed(known: _Choice, key: str, value: Any) -> Any:
    """A list that goes on with one told before, whose entries have their places: without them OpenAI's client puts
    the two together not at all."""
    if type(value) is not list or key == "tool_calls":
        return value
    first = known.listed.get(key, 0)
    known.listed[key] = first + len(value)
    if not first or all(map(_has_place, value)):
        return value
    return [{**entry, "index": n} if isinstance(entry, dict) else entry for n, entry in enumerate(value, first)]
