"""Lines in the forms of chat APIs: fine-tuning examples, stored completions, pairs of request and response, batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distiller.logs.answers import LoggedAnswer, said_in
from distiller.logs.calls import Found, HalfCall, LoggedCall, SkipReason, Source
from distiller.logs.messages import messages_of, says_anything
from distiller.logs.terms import told_rights
from distiller.logs.values import dollars, first, mapping, moment, seconds_between, text, usage_of
from router.contracts.records import Usage
from router.scoring.text.features import extract

CHARACTERS_A_TOKEN = 4
SHAPING = (
    "tools", "tool_choice", "functions", "function_call", "response_format", "temperature", "top_p", "max_tokens",
    "max_completion_tokens", "stop", "n", "seed", "logprobs", "reasoning_effort", "stream", "metadata",
)  # fmt: skip
"""Fields of a request beside its messages that are kept."""
REQUEST = ("request", "request_body", "body", "kwargs", "input")
ANSWER = (
    "response", "response_body", "output", "completion", "answer", "preferred_output", "chosen", "label", "target",
    "result",
)  # fmt: skip
TIMES = ("created_at", "timestamp", "created", "start_time", "startTime", "time", "ts", "date", "request_time")
ENDS = ("end_time", "endTime", "completed_at")
IDS = ("request_id", "id", "call_id", "completion_id", "generation_id", "uuid")
USERS = ("user_id", "userId", "end_user", "user", "customer_id", "input_user")
SESSIONS = ("conversation_id", "session_id", "sessionId", "thread_id", "chat_id")
COSTS = ("cost_usd", "cost", "response_cost", "total_cost", "spend")
_OF_ANSWER = frozenset({"id", "created", "created_at", "model", "object", "usage"})
"""What an answer says of its call, where nothing around it does."""


def looks_like(line: Mapping[str, Any]) -> bool:
    """Whether it may be one of these forms."""
    names = line.keys()
    known = {"messages", "custom_id", "prompt", "input", "question", "instruction", "text", "choices", "completion"}
    return bool(names & known) or bool(names & set(REQUEST) and names & set(ANSWER))


def read(line: dict[str, Any]) -> Found:
    """The call in a line, or half of one."""
    if line.get("custom_id") and not line.get("messages"):
        return _half(line)
    body = mapping(first(line, ("request", "request_body", "body", "kwargs")))
    return call_of(Source.OPENAI, line, body if messages_of(body) else line, first(line, ANSWER))


def _half(line: dict[str, Any]) -> Found:
    pair = str(line["custom_id"])
    if mapping(line.get("body")) or mapping(line.get("params")):
        return HalfCall(pair, "request", line)
    if "response" in line or "result" in line or "error" in line:
        return HalfCall(pair, "answer", line)
    return SkipReason.UNKNOWN


def joined(request: Mapping[str, Any], answer: Mapping[str, Any]) -> Found:
    """The call whose halves these lines of a batch are."""
    body = mapping(request.get("body")) or mapping(request.get("params"))
    told = mapping(answer.get("response")) or mapping(answer.get("result"))
    if answer.get("error") or told.get("type") in ("errored", "canceled", "expired"):
        return SkipReason.FAILED
    if isinstance(status := told.get("status_code"), int) and status >= 400:
        return SkipReason.FAILED
    said = mapping(told.get("body")) or mapping(told.get("message"))
    facts = {**said, "id": said.get("id") or told.get("request_id") or answer.get("id")}
    return call_of(Source.OPENAI, facts, body, said)


def call_of(source: Source, facts: Mapping[str, Any], body: Mapping[str, Any], answer: Any) -> Found:
    """A call from what a line says of it (``facts``), the request's body, and what was said in any form.

    Where nothing else was, the last of the messages is the answer, as in examples to tune on."""
    facts = {name: value for name, value in mapping(answer).items() if name in _OF_ANSWER} | dict(facts)
    if "embedding" in str(facts.get("object", "")) or "embedding" in str(body.get("model") or facts.get("model") or ""):
        return SkipReason.NO_CALL
    messages = messages_of(first(body, ("messages", "input", "prompt", "contents", "question", "instruction", "text")))
    said = said_in(answer) if answer is not None else LoggedAnswer(None)
    if said.message is None and isinstance(facts.get("choices"), list):
        said = said_in(dict(facts))
    if said.message is None and answer is None and messages and messages[-1]["role"] == "assistant":
        said, messages = said_in(messages[-1]), messages[:-1]
    system = first(body, ("instructions", "system", "system_prompt", "system_instruction"))
    if system is not None and messages and messages[0]["role"] not in ("system", "developer"):
        messages = [*(m | {"role": "system"} for m in messages_of(system)), *messages]
    if facts.get("error") and said.message is None:
        return SkipReason.FAILED
    if not any(m["role"] == "user" and says_anything(m) for m in messages):
        return SkipReason.NO_REQUEST
    if said.message is None:
        return SkipReason.NO_ANSWER
    model = text(first(facts, ("model", "model_name"))) or said.model or text(body.get("model")) or ""
    request = {"model": model, "messages": messages, **{name: body[name] for name in SHAPING if body.get(name)}}
    start, metadata = moment(first(facts, TIMES)), mapping(first(facts, ("metadata",)) or body.get("metadata"))
    return LoggedCall(
        source=source,
        request=request,
        message=said.message,
        finish_reason=said.finish_reason,
        at=start,
        model=model,
        call_id=text(first(facts, IDS)) or "",
        usage=usage_of(facts.get("usage"), facts) or said.usage or estimated(request, said.message),
        cost_usd=dollars(first(facts, COSTS)),
        seconds=seconds_between(start, moment(first(facts, ENDS))),
        user=text(first(facts, USERS)) or text(body.get("user")),
        conversation=text(first(facts, SESSIONS)),
        task=text(first(facts, ("task",))) or text(metadata.get("task")),
        rights=told_rights(facts, mapping(answer), mapping(facts.get("model_info")), metadata=metadata),
    )


def estimated(request: Mapping[str, Any], message: Mapping[str, Any]) -> Usage:
    """What nobody counted: four bytes a token."""
    said = str(message.get("content") or "") + "".join(
        str(mapping(mapping(call).get("function")).get("arguments", "")) for call in message.get("tool_calls") or ()
    )
    output = max(1, -(-len(said.encode("utf-8", "replace")) // CHARACTERS_A_TOKEN))
    return Usage(input_tokens=extract(request).input_tokens, output_tokens=output, estimated=True)
