"""What is wrong with an answer whatever was asked: it is empty, refuses, breaks the form that the client asked for,
goes round in a loop or was cut off."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from router.contracts.decision import Deferral
from router.contracts.records import Signals
from router.errors import BadRequest
from router.judges.pair import Message
from router.judges.schema import fits, schema_of
from router.wire.tools import OfferedTools

_CANNOT = r"(?:can't|cannot|can not|won't be able to|(?:am|'m) (?:unable|not able) to|(?:do not|don't) have)"
REFUSALS = (
    rf"(?:i'm|i am) (?:sorry|afraid)\W+(?:but )?(?:that )?(?:as an ai\W+)?i ?{_CANNOT}",
    rf"(?:sorry|unfortunately|apologies|my apologies)\W+(?:but )?i ?{_CANNOT}",
    r"(?:i apologi[sz]e)\W+but",
    r"i ?(?:can't|cannot|can not|(?:am|'m) (?:unable|not able) to) (?:help|assist|answer|provide|fulfil|comply"
    r"|complete|respond|determine|access|process|do that|continue)",
    r"i (?:do not|don't) have (?:access|the ability|(?:enough|sufficient) (?:information|context))",
    r"as an? (?:ai|artificial intelligence|(?:large )?language model)\b",
    r"es tut mir leid\W+(?:aber )?(?:ich kann|das kann ich)",
    r"lo siento\W+(?:pero )?no puedo",
    r"(?:je suis )?désolée?\W+(?:mais )?je ne (?:peux|suis)",
    r"(?:对不起|抱歉|很抱歉)[，,\s]*我(?:无法|不能)",
)
"""How refusals open, after lower-casing. Only the opening counts: the same words inside a long answer
are usually quoted or part of the work."""

_REFUSAL = re.compile("|".join(f"(?:{p})" for p in REFUSALS))
_LONGEST_REFUSAL_CHARS = 600
_LOOP_CHARS, _LOOP_TIMES, _LONGEST_UNIT_CHARS = 48, 4, 120
_DULL_LOOP_CHARS = 160
_READ_CHARS = 32_768
"""How far back from an answer's end a loop of words is looked for."""
_WORDS_TO_TELL, _GRAM, _LEAST_DISTINCT = 60, 4, 0.35
_BLANK_CHARS = 8
_TEXT = frozenset({"role", "content", "reasoning", "reasoning_content", "reasoning_details"})


@dataclass(frozen=True, slots=True)
class AskedForm:
    """What the client asked of the answer's form.

    ``json``: it must be JSON, an object unless a ``schema`` says otherwise; ``schema``: and not break
    it, as far as that can be told. ``limited``: the client set the length itself, so an answer cut there is as asked.
    ``outside`` tells of a whole message that it is none of the answers that there are, where these are known;
    ``kinds``: personal data that it must not hold. ``closed_only``: it must be one of those, and nothing else is asked.
    ``tools``: it may call these, which the client offered, or must.
    """

    json: bool = False
    schema: Mapping[str, Any] | None = None
    limited: bool = False
    outside: Callable[[Message], bool] | None = None
    kinds: tuple[str, ...] = ()
    closed_only: bool = False
    tools: OfferedTools | None = None

    @property
    def closed(self) -> bool:
        """Whether an answer is looked at whole: one of a closed set is short, and a call that was let go cannot be
        taken back, wherever in an answer it comes."""
        return self.schema is not None or self.outside is not None or self.tools is not None


@dataclass(slots=True)
class AnswerSoFar:
    """The part of a student's answer that was held back so far.

    ``message``: OpenAI's assistant message (of a stream: its deltas joined). ``complete``: nothing
    more will come; ``finish_reason`` is None until then. ``beyond``: tokens told of that ended it, and are none of it.
    """

    message: Mapping[str, Any]
    finish_reason: str | None = None
    signals: Signals | None = None
    complete: bool = True
    beyond: int = 0

    @property
    def text(self) -> str:
        content = self.message.get("content")
        return content if isinstance(content, str) else ""


def wanted(body: Mapping[str, Any]) -> AskedForm:
    """Reads what the request asks of the answer's form. Malformed parts count as not asked."""
    limited = body.get("max_tokens") is not None or body.get("max_completion_tokens") is not None
    tools = _offered(body)
    form = body.get("response_format")
    kind = form.get("type") if isinstance(form, dict) else None
    if not isinstance(form, dict) or kind not in ("json_object", "json_schema"):
        return AskedForm(limited=limited, tools=tools)
    return AskedForm(json=True, schema=schema_of(body), limited=limited, tools=tools)


def _offered(body: Mapping[str, Any]) -> OfferedTools | None:
    try:
        return OfferedTools.of(body)
    except BadRequest:
        return None


def structural(seen: AnswerSoFar, want: AskedForm) -> Deferral | None:
    """What is wrong with an answer whatever the question was; None where nothing is."""
    text, calls = seen.text, seen.message.get("tool_calls")
    if miscalled := _miscalled(seen, want):
        return miscalled
    if calls and not want.outside:
        return None
    if seen.message.get("refusal") or seen.finish_reason == "content_filter" or _refuses(text):
        return Deferral.REFUSAL
    if not text.strip():
        return Deferral.EMPTY if seen.complete or len(text) >= _BLANK_CHARS else None
    if seen.finish_reason == "length" and not want.limited:
        return Deferral.TRUNCATED
    return out_of_set(seen, want) or _misshapen(seen, want)


def out_of_set(seen: AnswerSoFar, want: AskedForm) -> Deferral | None:
    """Whether a whole answer is none of a closed set, or calls what it may not, cut off or not."""
    if not seen.complete:
        return None
    if want.tools is not None and (miscalled := _miscalled(seen, want)):
        return miscalled
    if want.outside is not None and (_beside(seen.message, want) or want.outside(seen.message)):
        return Deferral.OUTSIDE
    if want.schema is None or seen.message.get("tool_calls"):
        return None
    return Deferral.SCHEMA if _beside(seen.message, want) or not _as_asked(seen.text, want.schema) else None


def _beside(message: Message, want: AskedForm) -> bool:
    """Whether a message says anything beside its text and the thoughts before it, and calls that may be made."""
    told = _TEXT | {"tool_calls"} if want.tools else _TEXT
    return any(not _is_empty(value) for key, value in message.items() if key not in told)


def _is_empty(value: Any) -> bool:
    """Whether nothing is said: servers name fields that they do not fill."""
    return not value or (isinstance(value, dict) and all(map(_is_empty, value.values())))


def _misshapen(seen: AnswerSoFar, want: AskedForm) -> Deferral | None:
    if not want.json:
        return Deferral.REPETITION if _loops(seen.text) else None
    whole = seen.complete and seen.finish_reason != "length"
    fits = _as_asked(seen.text, want.schema) if whole else _opens_as_json(seen.text, want)
    return None if fits else Deferral.SCHEMA


def _refuses(text: str) -> bool:
    if len(text) > _LONGEST_REFUSAL_CHARS:
        return False
    opening = text[:200].lower().replace("’", "'").lstrip(" \t\n\"'*#>-")
    return _REFUSAL.match(opening) is not None


def _loops(text: str) -> bool:
    """Whether the text ends in one unit over and over, or says the same four words again and again.

    A unit of one character, or without letters and digits (a rule, a table's border) may go on for longer.
    The text is not blank.
    """
    tail = text.rstrip()[-_LONGEST_UNIT_CHARS * _LOOP_TIMES :]
    end = len(tail) - 1
    first = end - len(tail) // _LOOP_TIMES
    at = end
    while (at := tail.rfind(tail[end], first, at)) >= 0:  # where the unit before the last would end
        size = end - at
        unit = tail[-size:]
        if not tail.endswith(unit, 0, at + 1):
            continue
        dull = len(set(unit)) == 1 or not any(c.isalnum() for c in unit)
        times = max(_LOOP_TIMES, -(-(_DULL_LOOP_CHARS if dull else _LOOP_CHARS) // size))
        if tail.endswith(unit * times):
            return True
    words = text[-_READ_CHARS:].split() if len(text) >= 2 * _WORDS_TO_TELL - 1 else ()
    if len(words) < _WORDS_TO_TELL:
        return False
    grams = set(zip(*(words[i:] for i in range(_GRAM)), strict=False))
    return len(grams) < _LEAST_DISTINCT * (len(words) - _GRAM + 1)


def _opens_as_json(text: str, want: AskedForm) -> bool:
    """Whether a beginning can still become what was asked for."""
    first = text.lstrip()[:1]
    return first in ('{["-0123456789tfn' if want.schema is not None else "{")


def _as_asked(text: str, schema: Mapping[str, Any] | None) -> bool:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) if schema is None else fits(value, schema) is not False


def _miscalled(seen: AnswerSoFar, want: AskedForm) -> Deferral | None:
    """Whether an answer calls what nobody offered or, once it is whole, what it may not."""
    calls = seen.message.get("tool_calls")
    if want.tools is None:
        return None if not calls else Deferral.OUTSIDE if want.outside else Deferral.SCHEMA
    return Deferral.SCHEMA if seen.complete and not _called_as_offered(calls, want.tools) else None


def called_as_offered(message: Message, body: Mapping[str, Any]) -> bool:
    """Whether an answer calls what a request lets it call, with arguments that fit, and as many as it must."""
    offered = _offered(body)
    return _called_as_offered(message.get("tool_calls"), offered) if offered else not message.get("tool_calls")


def _called_as_offered(calls: object, tools: OfferedTools) -> bool:
    """Whether an answer calls what it may, and as many as it must."""
    if not calls:
        return not tools.must
    if not isinstance(calls, list) or (tools.single and len(calls) > 1):
        return False
    return all(isinstance(call, dict) and _is_offered(call, tools) for call in calls)


def _is_offered(call: Mapping[str, Any], tools: OfferedTools) -> bool:
    """Whether a call names a tool that was offered, with arguments that do not break its schema, as far as that can be
    told."""
    kind = "custom" if isinstance(call.get("custom"), dict) else "function"
    function = call.get(kind)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or name not in tools.parameters:
        return False
    schema = tools.parameters[name]
    if schema is None or kind == "custom":
        return schema is None and kind == "custom"
    try:
        value = orjson.loads(function.get("arguments") or "{}")
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and fits(value, schema) is not False
