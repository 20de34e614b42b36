"""The same call as each system writes it down."""

from __future__ import annotations

import json
from typing import Any

from distiller.logs.calls import Found
from distiller.logs.reader import HalfCalls, calls_in

ASKED = [{"role": "system", "content": "Name the intent."}, {"role": "user", "content": "Where is my card?"}]
SAID = {"role": "assistant", "content": "card_arrival"}
AT = 1_760_000_000.0
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": int(AT),
    "model": "gpt-5",
    "choices": [{"index": 0, "message": SAID, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
}
BODY = {"model": "gpt-5", "messages": ASKED, "temperature": 0}
FINE_TUNING = {"messages": [*ASKED, SAID]}
STORED = {**COMPLETION, "messages": ASKED, "metadata": {"task": "intents"}}
PAIR = {"request": BODY, "response": COMPLETION}
BATCH = {"custom_id": "r-1", "method": "POST", "url": "/v1/chat/completions", "body": BODY}
BATCH_ANSWER = {
    "id": "batch_req_1",
    "custom_id": "r-1",
    "response": {"status_code": 200, "body": COMPLETION},
    "error": None,
}
CLAUDE = {
    "request": {"model": "claude-opus-5.5", "system": "Name the intent.", "max_tokens": 9, "messages": ASKED[1:]},
    "response": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-5.5", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "card_arrival"}], "usage": {"input_tokens": 12, "output_tokens": 3},
    },
}  # fmt: skip
RESPONSES = {
    "request": {"model": "gpt-5", "instructions": "Name the intent.", "input": "Where is my card?"},
    "response": {
        "id": "resp_1", "object": "response", "created_at": AT, "model": "gpt-5", "status": "completed",
        "output": [
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "card_arrival"}]},
        ],
        "usage": {"input_tokens": 12, "output_tokens": 3},
    },
}  # fmt: skip
LITELLM = {
    "request_id": "chatcmpl-1", "call_type": "acompletion", "api_key": "hash", "spend": 0.0004, "total_tokens": 15,
    "prompt_tokens": 12, "completion_tokens": 3, "startTime": "2025-10-09T08:53:20Z", "endTime": "2025-10-09T08:53:21Z",
    "model": "gpt-5", "custom_llm_provider": "openai", "user": "u", "end_user": "ann", "metadata": "{}",
    "messages": json.dumps(ASKED), "response": json.dumps(COMPLETION),
    "request_tags": '["intents"]', "status": "success",
}  # fmt: skip
LANGFUSE = {
    "id": "obs-1", "traceId": "t-1", "type": "GENERATION", "name": "intents", "startTime": "2025-10-09T08:53:20.000Z",
    "endTime": "2025-10-09T08:53:21.000Z", "model": "gpt-5", "modelParameters": {"temperature": 0},
    "input": ASKED, "output": SAID, "usageDetails": {"input": 12, "output": 3, "total": 15}, "level": "DEFAULT",
    "calculatedTotalCost": 0.0004, "sessionId": "s-1",
}  # fmt: skip


def attribute(key: str, value: Any) -> dict[str, Any]:
    kind = "intValue" if isinstance(value, int) else "stringValue"
    return {"key": key, "value": {kind: value if kind == "stringValue" else str(value)}}


def part_of(message: dict[str, Any]) -> dict[str, Any]:
    return {"role": message["role"], "parts": [{"type": "text", "content": message["content"]}]}


OTLP = {
    "resourceSpans": [{
        "scopeSpans": [{
            "spans": [
                {"name": "POST /chat", "spanId": "0", "attributes": [attribute("http.method", "POST")]},
                {
                    "name": "chat gpt-5", "spanId": "1", "startTimeUnixNano": str(int(AT * 1e9)),
                    "endTimeUnixNano": str(int((AT + 1) * 1e9)),
                    "attributes": [
                        attribute("gen_ai.operation.name", "chat"),
                        attribute("gen_ai.request.model", "gpt-5"),
                        attribute("gen_ai.usage.input_tokens", 12),
                        attribute("gen_ai.usage.output_tokens", 3),
                        attribute("gen_ai.input.messages", json.dumps([part_of(m) for m in ASKED])),
                        attribute(
                            "gen_ai.output.messages", json.dumps([{**part_of(SAID), "finish_reason": "stop"}])
                        ),
                    ],
                },
            ]
        }]
    }]
}  # fmt: skip
SPAN = {
    "name": "openai.chat", "context": {"trace_id": "0x1", "span_id": "0x2"},
    "start_time": "2025-10-09T08:53:20.000000Z",
    "end_time": "2025-10-09T08:53:21.000000Z",
    "attributes": {
        "gen_ai.system": "openai", "gen_ai.request.model": "gpt-5", "gen_ai.prompt.0.role": "system",
        "gen_ai.prompt.0.content": "Name the intent.", "gen_ai.prompt.1.role": "user",
        "gen_ai.prompt.1.content": "Where is my card?", "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": "card_arrival", "gen_ai.completion.0.finish_reason": "stop",
        "gen_ai.usage.prompt_tokens": 12, "gen_ai.usage.completion_tokens": 3,
    },
}  # fmt: skip
OPENINFERENCE = {
    "name": "ChatCompletion", "context": {"span_id": "0x3"}, "start_time": "2025-10-09T08:53:20Z",
    "attributes": {
        "openinference.span.kind": "LLM", "llm.model_name": "gpt-5", "llm.token_count.prompt": 12,
        "llm.token_count.completion": 3,
        "llm.input_messages.0.message.role": "system", "llm.input_messages.0.message.content": "Name the intent.",
        "llm.input_messages.1.message.role": "user", "llm.input_messages.1.message.content": "Where is my card?",
        "llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.content": "card_arrival",
    },
}  # fmt: skip
EVENTS = {
    "name": "chat gpt-5", "spanId": "4", "startTimeUnixNano": int(AT * 1e9),
    "attributes": [attribute("gen_ai.request.model", "gpt-5"), attribute("gen_ai.system", "openai")],
    "events": [
        {"name": "gen_ai.system.message", "attributes": [attribute("content", "Name the intent.")]},
        {"name": "gen_ai.user.message", "attributes": [attribute("content", "Where is my card?")]},
        {"name": "gen_ai.choice", "attributes": [attribute("message", json.dumps(SAID)), attribute("index", 0)]},
    ],
}  # fmt: skip
EVERY = {
    "fine-tuning": FINE_TUNING, "stored": STORED, "pair": PAIR, "claude": CLAUDE, "responses": RESPONSES,
    "litellm": LITELLM, "langfuse": LANGFUSE, "otlp": OTLP, "span": SPAN, "openinference": OPENINFERENCE,
    "events": EVENTS,
}  # fmt: skip


def found_in(*lines: Any) -> list[Found]:
    """What these lines hold, halves joined."""
    halves, found = HalfCalls(), list[Found]()
    for line in lines:
        for one in calls_in(line if isinstance(line, bytes) else json.dumps(line).encode()):
            joined = halves.joined(one)
            found += [] if joined is None else [joined]
    found += halves.left().elements()
    halves.close()
    return found
