"""The form in which OpenAI's clients expect a chat answer, where they look without asking."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from router.contracts.records import Usage
from router.wire.calls import Call
from router.wire.finish import finish_of
from router.wire.sse import LEAST_LOGPROB
from router.wire.usage import count, read_usage

COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
PROMISES = frozenset({"tool_calls", "function_call"})
"""Why an answer ends that calls something."""
Head = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AnswerTerms:
    """What of a request says how its answer is told. ``model``: who is asked; ``forced``: a tool was asked for, and
    OpenAI's own answer may then end in ``stop``; ``older``: by one that knows functions and no tools; ``usage``: a
    stream ends with token counts; ``choices``: so many were asked for."""

    model: str
    forced: bool = False
    older: bool = False
    usage: bool = False
    choices: int = 1

    @classmethod
    def of(cls, body: Mapping[str, Any], model: str, *, usage: bool = False) -> AnswerTerms:
        choice = body.get("tool_choice")
        forced = isinstance(choice, dict) or choice == "required"
        older = bool(body.get("functions")) and not body.get("tools")
        return cls(model, forced, older, usage, max(1, count(body.get("n")) or 1))

    def finish(self, told: Any, calls: bool, *, older: bool = False) -> str | None:
        """Why an answer ends, by what is ``told``: with calls where it has some, and only then. ``older``: it calls a
        function, which is no tool. None where it does not say."""
        said = finish_of(told)
        if said is None or (calls and older):
            return said
        if not calls:
            return "stop" if said in PROMISES else said
        return "tool_calls" if said == "function_call" or (said == "stop" and not self.forced) else said


def fresh_head(kind: str, model: str) -> Head:
    return {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}


def is_headed(answer: Mapping[str, Any]) -> bool:
    """Whether it has all that names an answer."""
    get = answer.get
    named = type(get("id")) is str and type(get("model")) is str
    return named and type(get("object")) is str and type(get("created")) is int


def head_of(answer: Mapping[str, Any], otherwise: Head) -> Head:
    """What names an answer; where it lacks that, as ``otherwise``."""
    found = ((key, answer.get(key), default) for key, default in otherwise.items())
    return {key: value if type(value) is type(default) else default for key, value, default in found}


def is_counted(usage: Any) -> bool:
    """Whether its counts are told as OpenAI tells them, and as they are billed."""
    return type(usage) is dict and all(type(usage.get(key)) is int for key in COUNTS) and counted(usage) == usage


def counted(usage: Any) -> dict[str, Any] | None:
    """Token counts by OpenAI's names, as they are billed; None where there are none at all."""
    if not isinstance(usage, dict) or not usage:
        return None
    told = read_usage(usage)
    found = as_told(Usage() if told is None else told.usage, usage)
    return found if told is None or not told.total else found | {"total_tokens": told.total}


def as_told(used: Usage, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was ``used`` as a client is told of it, with all that was ``given`` beside the counts."""
    read, said = used.input_tokens, used.output_tokens
    found = {**given, "prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said}
    parts = (
        ("prompt_tokens_details", "cached_tokens", min(used.cached_input_tokens, read)),
        ("completion_tokens_details", "reasoning_tokens", min(used.reasoning_tokens, said)),
    )
    for name, part, tokens in parts:
        details = details if isinstance(details := given.get(name), dict) else {}
        if tokens != (count(details.get(part)) or 0):
            found[name] = {**details, part: tokens}
    return found


def billed(found: dict[str, Any], usage: Usage) -> bool:
    """Tells an answer's or a chunk's counts as they are billed, where it has any. Whether that changed them."""
    given = found.get("usage")
    if isinstance(given, dict):
        found["usage"] = as_told(usage, given)
    return found.get("usage") != given


def are_probable(logprobs: Any) -> bool:
    """Whether what is told of the tokens is of OpenAI's form."""
    if logprobs is None:
        return True
    content = logprobs.get("content") if type(logprobs) is dict else ()
    if content is None:
        return True
    return type(content) is list and all(
        type(t) is dict and type(t.get("token")) is str and isinstance(t.get("logprob"), float | int) for t in content
    )


def probable(logprobs: Any) -> dict[str, Any] | None:
    """The tokens of which something is told."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list):
        return None
    return {**logprobs, "content": _tokens(content)}


def _tokens(found: Iterable[Any]) -> list[dict[str, Any]]:
    told = []
    for token in found:
        if isinstance(token, dict) and isinstance(token.get("token"), str):
            logprob = value if isinstance(value := token.get("logprob"), float | int) else LEAST_LOGPROB
            others = {"top_logprobs": _tokens(top)} if isinstance(top := token.get("top_logprobs"), list) else {}
            told.append({**token, "logprob": logprob, **others})
    return told


def own_id(call: Call, others: Iterable[Call]) -> None:
    """Gives a call an id where it has none, or one that another call has too: its result will name it."""
    known = {other.own_id or other.id for other in others if other is not call}
    if not call.id or call.id in known:
        call.own_id = f"call_{secrets.token_hex(12)}"
