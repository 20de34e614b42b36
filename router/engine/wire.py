"""OpenAI's chat-completions wire: a request's bytes to values, and deltas to the bodies that clients parse."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from router.engine.generation import Sampling, Token
from router.errors import BadRequest
from router.policy.engines import heeded_by
from router.wire.body import json_object, model_of
from router.wire.tools import OfferedTools, shown

HEEDED = heeded_by("embedded")
MAX_CHOICES = 16
MAX_TOP = 20
MAX_STOPS = 16
ROLES = frozenset({"assistant", "system", "tool", "user"})
UNREAD = ("audio", "function_call")
"""What no template of a text model would show of a message."""


@dataclass(frozen=True, slots=True)
class Chat:
    """What a request asks for. ``max_tokens`` is None where it names no limit, ``schema`` the JSON schema that
    the answer must fit, None where it may be any text. ``tools``: those that it may call, and ``shown`` those that its
    prompt names. ``yields``: nobody waits for the answer (a ``priority``
    above 0, as vLLM counts it: lower begins earlier)."""

    model: str
    messages: tuple[Mapping[str, Any], ...]
    schema: Mapping[str, Any] | None
    tools: OfferedTools | None
    shown: tuple[Mapping[str, Any], ...]
    sampling: Sampling
    stops: tuple[str, ...]
    max_tokens: int | None
    n: int
    logprobs: bool
    stream: bool
    include_usage: bool
    yields: bool

    def sampling_of(self, index: int) -> Sampling:
        """Each choice draws its own: with one seed for all, they would be the same answer ``n`` times."""
        seed = self.sampling.seed
        return self.sampling if seed is None else replace(self.sampling, seed=(seed + index) % (1 << 63))


@dataclass(frozen=True, slots=True)
class Identity:
    """What every chunk of an answer repeats."""

    id: str
    model: str
    created: int

    @classmethod
    def new(cls, suffix: str, model: str) -> Identity:
        return cls(f"chatcmpl-{suffix}", model, int(time.time()))

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def parse(raw: bytes) -> Chat:
    """Reads a chat-completions body.

    Raises:
        BadRequest: no JSON object, a field has an impossible value, or one asks for what this engine does not
            do; ``param`` names it.
    """
    body = json_object(raw)
    if (field := HEEDED.unheeded(body)) is not None:
        raise BadRequest(f"this student does nothing with {field!r}: leave it out, or ask the teacher", param=field)
    model = model_of(body)
    logprobs = bool(body.get("logprobs"))
    seed = body.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise BadRequest("seed must be an integer", param="seed")
    return Chat(
        model=model,
        messages=_messages(body.get("messages")),
        schema=_schema(body.get("response_format")),
        tools=_tools(body),
        shown=tuple(shown(body)),
        sampling=Sampling(
            temperature=_number(body, "temperature", 1.0, 0.0, 2.0),
            top_p=_number(body, "top_p", 1.0, 0.0, 1.0),
            presence_penalty=_number(body, "presence_penalty", 0.0, -2.0, 2.0),
            frequency_penalty=_number(body, "frequency_penalty", 0.0, -2.0, 2.0),
            seed=None if seed is None else seed % (1 << 63),
            top=int(_number(body, "top_logprobs", 0, 0, MAX_TOP, whole=True)) if logprobs else 0,
        ),
        stops=_stops(body.get("stop")),
        max_tokens=_max_tokens(body),
        n=int(_number(body, "n", 1, 1, MAX_CHOICES, whole=True)),
        logprobs=logprobs,
        stream=bool(body.get("stream")),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        yields=_number(body, "priority", 0, -(1 << 31), 1 << 31, whole=True) > 0,
    )


def _number(
    body: Mapping[str, Any], name: str, default: float, least: float, most: float, *, whole: bool = False
) -> float:
    value = body.get(name)
    if value is None:
        return default
    fits = isinstance(value, int) or (isinstance(value, float) and not whole)
    if not fits or isinstance(value, bool) or not least <= value <= most:
        what = "an integer" if whole else "a number"
        raise BadRequest(f"{name} must be {what} from {least} to {most}, not {value!r}", param=name)
    return float(value)


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        if body.get(name) is not None:
            return int(_number(body, name, 0, 1, 1 << 31, whole=True))
    return None


def _stops(stop: object) -> tuple[str, ...]:
    if stop is None:
        return ()
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise BadRequest(f"stop must be a non-empty string or up to {MAX_STOPS} of them", param="stop")
    return tuple(stops)


def _schema(form: object) -> Mapping[str, Any] | None:
    kind = form.get("type") if isinstance(form, dict) else None
    if form is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    described = form.get("json_schema") if isinstance(form, dict) and kind == "json_schema" else None
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        expected = "{'type': 'text'}, {'type': 'json_object'}, or of type 'json_schema' with json_schema.schema"
        raise BadRequest(f"response_format must be {expected}", param="response_format")
    return schema


def _tools(body: Mapping[str, Any]) -> OfferedTools | None:
    tools = OfferedTools.of(body)
    if tools is not None and None in tools.parameters.values():
        raise BadRequest("this student calls functions, and no custom tools", param="tools")
    return tools


def _messages(messages: object) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a non-empty list", param="messages")
    return tuple(_message(m, f"messages[{i}]") for i, m in enumerate(messages))


def _message(message: object, where: str) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise BadRequest(f"{where} must be an object with a role", param=where)
    role = "system" if message["role"] == "developer" else message["role"]
    if role not in ROLES or any(message.get(field) for field in UNREAD):
        raise BadRequest(f"{where}: this student reads texts and calls of tools, and hears nothing", param=where)
    calls = message.get("tool_calls") or []
    if calls and (role != "assistant" or not isinstance(calls, list) or not all(map(_is_call, calls))):
        raise BadRequest(f"{where}.tool_calls must be an assistant's calls of functions", param=f"{where}.tool_calls")
    return {**message, "role": role, "content": _content(message.get("content"), f"{where}.content")}


def _is_call(call: object) -> bool:
    if not isinstance(call, dict) or call.get("type", "function") != "function":
        return False
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return False
    return isinstance(function.get("arguments"), str | None) and isinstance(call.get("id"), str | None)


def _content(content: object, where: str) -> str:
    """Chat templates of text models take strings: parts are joined, and what is not text is refused."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest(f"{where} must be a string or a list of parts", param=where)
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise BadRequest(f"{where}: this model reads text parts only", param=where)
        texts.append(part["text"])
    return "\n".join(texts)


def logprobs(tokens: Iterable[Token], decode: Callable[[Sequence[int]], str]) -> dict[str, Any]:
    """OpenAI's ``logprobs`` object for some tokens of an answer."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        text = decode([token])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    return {
        "content": [{**entry(t.id, t.logprob), "top_logprobs": [entry(i, p) for i, p in t.top]} for t in tokens],
        "refusal": None,
    }


def usage(prompt: int, completion: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def completion(who: Identity, choices: list[dict[str, Any]], used: dict[str, Any]) -> dict[str, Any]:
    return {**who.head("chat.completion"), "choices": choices, "usage": used}


def choice(index: int, message: dict[str, Any], finish: str, probabilities: dict[str, Any] | None) -> dict[str, Any]:
    return {"index": index, "message": message, "logprobs": probabilities, "finish_reason": finish}


def chunk(
    who: Identity,
    index: int,
    delta: dict[str, Any],
    finish: str | None = None,
    probabilities: dict[str, Any] | None = None,
) -> dict[str, Any]:
    part = {"index": index, "delta": delta, "logprobs": probabilities, "finish_reason": finish}
    return {**who.head("chat.completion.chunk"), "choices": [part]}


def said(text: str) -> dict[str, Any]:
    """An assistant's message of text alone."""
    return {"role": "assistant", "content": text, "refusal": None}


def event(body: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(body) + b"\n\n"


DONE = b"data: [DONE]\n\n"
