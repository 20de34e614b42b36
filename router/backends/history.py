"""A conversation's history, so that a backend takes what another wrote.

An answer carries more than its text: reasoning, signatures, tool-call ids, fields that are null. Clients
send it back as it came, and a backend that did not write it may refuse it: Mistral takes no field that it
does not know and ids of nine letters and digits alone, OpenAI ids of at most 40 characters, Anthropic
none twice. So assistant turns and the ids that tie tool results to them are brought into a form that the
backend takes. What users and tools say passes untouched.

Who wrote a turn is not told, and need not be. The student's tool calls leave here under ids of our own
(``own_call_ids``), which every provider takes and which mark a turn as the student's. Reasoning is read
again by some models, but only within the turns in which they call tools: there a teacher gets its own
back, word for word, and elsewhere no model misses it. Signed reasoning (thinking blocks, thought
signatures) only teachers write, and teachers get it back, but for the providers that take no such field.
What a client left out of a turn, ``router.backends.thoughts`` has put back before; where nobody knows it any more, a
provider that cannot do without gets what it takes instead.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from router.backends.base import Backend
from router.contracts.decision import Tier
from router.wire.rationale import may_think, without_thoughts

Message = Mapping[str, Any]

OWN = "lcm"
"""How the ids of the student's tool calls begin."""

REASONING = frozenset({"reasoning", "reasoning_content"})
"""Plain reasoning: students write it too."""

PROVIDERS = frozenset({"annotations", "provider_specific_fields", "reasoning_details", "thinking_blocks"})
"""What only teachers write."""

ANSWERED = frozenset({"audio", "function_call", "refusal", "tool_calls"}) | REASONING | PROVIDERS
"""Fields of an answer; without a value they say nothing, and several providers refuse them so."""

SAID = frozenset({"audio", "content", "function_call", "name", "role", "tool_calls"})
"""What a student gets of an assistant turn."""

NO_THOUGHT = " "
"""What stands for the reasoning of a turn that has none: where some must be there, it may not be empty."""

UNSIGNED: Mapping[str, Any] = {"extra_content": {"google": {"thought_signature": "skip_thought_signature_validator"}}}
"""Google's own word for a call that another model made: without a signature its reasoning models refuse it."""

_CALL = frozenset({"function", "id", "type"})
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,40}")
_NINE = re.compile(r"[A-Za-z0-9]{9}")
_THINKING = frozenset({"reasoning", "redacted_thinking", "thinking"})
_LOOKED_AT = frozenset({"developer", "tool"})


class Vendor(Enum):
    """Whose rules a backend follows. At ``GEMINI`` and ``KIMI`` an id carries meaning, so what they wrote comes
    back as it was; ``KIMI`` and ``DEEPSEEK`` refuse tool calls without reasoning while they think."""

    STUDENT = "student"
    OPENAI = "openai"
    MISTRAL = "mistral"
    GEMINI = "gemini"
    KIMI = "kimi"
    DEEPSEEK = "deepseek"
    OTHER = "other"


_BY_NAME = (
    (Vendor.KIMI, ("kimi", "moonshot"), ("moonshot.ai", "moonshot.cn")),
    (Vendor.DEEPSEEK, ("deepseek",), ("deepseek.com",)),
    (Vendor.GEMINI, ("gemini",), ("googleapis.com",)),
    (Vendor.MISTRAL, ("mistral", "mixtral", "codestral", "devstral", "magistral", "pixtral"), ("mistral.ai",)),
)
"""(kind, what a model's name has in it, how a host ends)."""


def normalised(messages: Sequence[Any], backend: Backend) -> Sequence[Any]:
    """The messages as ``backend`` takes them; the same object where nothing must change. Never raises
    for malformed messages: whether they are right, the backend says."""
    student = backend.tier is Tier.STUDENT
    for message in messages:
        if _may_change(message, student):
            break
    else:
        return messages
    kind = kind_of(backend)
    ids, fresh = _Ids(kind), []
    for message in messages:
        if not isinstance(message, dict):
            fresh.append(message)
        elif message.get("role") == "assistant":
            turn = _turn(message, kind)
            fresh.append(ids.called(_unthought(turn, messages) if student else turn))
        elif message.get("role") == "tool":
            fresh.append(ids.answered(message))
        elif message.get("role") == "developer" and kind is Vendor.STUDENT:
            fresh.append({**message, "role": "system"})  # few open models' templates know the other name
        else:
            fresh.append(message)
    same = all(new is old for new, old in zip(fresh, messages, strict=True))
    return messages if same else fresh


def _may_change(message: Any, student: bool) -> bool:
    if not isinstance(message, dict):
        return False
    role = message.get("role")
    if role == "assistant":
        content = message.get("content")
        return len(message) > 2 or not isinstance(content, str) or (student and may_think(content))
    return role in _LOOKED_AT


def kind_of(backend: Backend) -> Vendor:
    """By the names of model and host. A wrong guess costs a teacher its own ids or reasoning, never an answer."""
    if backend.tier is Tier.STUDENT:
        return Vendor.STUDENT
    name, host = backend.label.lower(), urlsplit(backend.url or "").hostname or ""
    if name.startswith(("openai/", "azure/")) or host.endswith((".openai.com", ".azure.com")):
        return Vendor.OPENAI
    found = (k for k, names, hosts in _BY_NAME if host.endswith(hosts) or any(n in name for n in names))
    return next(found, Vendor.OTHER)


def is_openai(backend: Backend) -> bool:
    return kind_of(backend) is Vendor.OPENAI


def knows_max_tokens(backend: Backend) -> bool:
    """Whether it is known to go by ``max_tokens``: several of these drop the newer name, and the limit with it."""
    return backend.url is not None and kind_of(backend) in (
        Vendor.STUDENT,
        Vendor.MISTRAL,
        Vendor.DEEPSEEK,
        Vendor.KIMI,
    )


def _turn(message: Message, kind: Vendor) -> Message:
    """An assistant turn with the fields that the backend takes, and a content where it needs one."""
    kept = {k: v for k, v in message.items() if v or k not in ANSWERED}
    calls = _list(kept.get("tool_calls"))
    ours = any(map(_is_own, calls))
    if kind is Vendor.STUDENT:
        kept = {k: v for k, v in kept.items() if k in SAID}
        if isinstance(kept.get("content"), list):
            kept["content"] = _text_of(kept["content"])
    elif kind in (Vendor.OPENAI, Vendor.MISTRAL):
        kept = {k: v for k, v in kept.items() if k not in REASONING and k not in PROVIDERS}
    elif kind in (Vendor.KIMI, Vendor.DEEPSEEK):
        if calls:
            kept.setdefault("reasoning_content", NO_THOUGHT)
    elif kind is Vendor.GEMINI and calls and not any(map(_is_signed, calls)):
        kept = {k: v for k, v in kept.items() if k not in REASONING}
        kept["tool_calls"] = [{**call, **UNSIGNED} if isinstance(call, dict) else call for call in calls]
    elif ours or not calls:
        kept = {k: v for k, v in kept.items() if k not in REASONING}
    if kind is not Vendor.OPENAI:
        kept.pop("refusal", None)
    if not kept.get("content") and not kept.keys() & {"tool_calls", "function_call", "audio", "refusal"}:
        kept["content"] = message.get("refusal") or ""
    return message if kept == message else kept


def _unthought(turn: Message, messages: Sequence[Any]) -> Message:
    """The turn as training has it: thoughts that stand in its text are not read again."""
    content = turn.get("content")
    said = without_thoughts(content, messages) if isinstance(content, str) else content
    return turn if said == content else {**turn, "content": said}


def _text_of(parts: Iterable[Any]) -> Any:
    """An answer's parts as one string; where one is neither text nor thought they stay, to be refused."""
    said = [p for p in parts if not (isinstance(p, dict) and p.get("type") in _THINKING)]
    texts = [p.get("text") or p.get("refusal") for p in said if isinstance(p, dict)]
    found = [t for t in texts if isinstance(t, str)]
    return "\n".join(found) if len(found) == len(said) else said


class _Ids:
    """Tool-call ids over a conversation: each fits the backend, is there once, and is found again in the
    results that follow its call."""

    def __init__(self, kind: Vendor) -> None:
        self._kind = kind
        self._fits = _NINE if kind in (Vendor.STUDENT, Vendor.MISTRAL) else _PLAIN
        self._used: set[str] = set()
        self._tried: dict[tuple[Any, int], int] = {}
        self._open: dict[Any, deque[str]] = {}

    def called(self, turn: Message) -> Message:
        calls = _list(turn.get("tool_calls"))
        if not calls or self._kind in (Vendor.GEMINI, Vendor.KIMI):
            return turn
        self._open, fresh = {}, []
        for n, call in enumerate(calls):
            fresh.append(self._call(call, n) if isinstance(call, dict) else call)
        return turn if fresh == calls else {**turn, "tool_calls": fresh}

    def _call(self, call: Message, n: int) -> Message:
        old = call.get("id")
        if not isinstance(old, str | None):
            return call
        new = old if isinstance(old, str) and self._fits.fullmatch(old) and old not in self._used else ""
        again = self._tried.get((old, n), 0)  # those before are taken: a thousand calls may share an id
        while not new or new in self._used:
            new, again = _hashed(str(old), str(n), str(again)), again + 1
        self._tried[old, n] = again
        self._used.add(new)
        self._open.setdefault(old, deque()).append(new)
        kept = call
        strict = self._kind in (Vendor.STUDENT, Vendor.MISTRAL, Vendor.OPENAI) or _is_own(call)
        if strict and call.get("type", "function") == "function":
            kept = {k: v for k, v in call.items() if k in _CALL}
        return {**kept, "id": new}

    def answered(self, message: Message) -> Message:
        """A tool's result. One that answers no call before it stays as it is: the backend tells the client."""
        old = message.get("tool_call_id")
        new = self._open.get(old) if isinstance(old, str | None) else None
        if not new:
            return message
        given = new.popleft() if len(new) > 1 else new[0]
        return message if given == old else {**message, "tool_call_id": given}


def own_call_ids(answer: Mapping[str, Any]) -> None:
    """Gives the student's tool calls ids of our own, in an answer or a chunk of one (changes ``answer``).

    The same call gets the same id in every chunk, and no other in the conversation: it is hashed from the
    answer's id too, since many servers count their calls from 0 in every answer.
    """
    for choice in _list(answer.get("choices")):
        part = choice.get("message") or choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(part, dict) or not (calls := part.get("tool_calls")):
            continue
        for n, call in enumerate(_list(calls)):
            if isinstance(call, dict) and call.get("id") is not None:
                place = (answer.get("id"), choice.get("index"), call.get("index", n), call["id"])
                call["id"] = OWN + _hashed(*map(str, place))[:6]


def _is_signed(call: Any) -> bool:
    """Whether Gemini wrote the call: in its own form of it, or in litellm's."""
    if not isinstance(call, dict):
        return False
    google, fields = _inside(call, "extra_content", "google"), _inside(call, "provider_specific_fields")
    inner = _inside(call, "function", "provider_specific_fields")
    return any(found.get("thought_signature") for found in (google, fields, inner))


def _inside(value: Any, *path: str) -> Mapping[str, Any]:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _is_own(call: Any) -> bool:
    given = call.get("id") if isinstance(call, dict) else None
    return isinstance(given, str) and given.startswith(OWN) and _NINE.fullmatch(given) is not None


def _hashed(*parts: str) -> str:
    """Nine letters and digits: what every provider takes."""
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=8).hexdigest()[:9]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
