"""JSON schemas of what goes over the wire: as far as the proxy itself relies on a request or promises an answer.

Everything else passes through, so additional properties are allowed everywhere but in the proxy's own answers.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": 2**31}
FLAG: Schema = {"type": ["boolean", "null"]}
OBJECT: Schema = {"type": "object", "additionalProperties": True}
OBJECT_OR_NULL: Schema = {"type": ["object", "null"], "additionalProperties": True}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}


def listed(items: Schema, at_least: int = 0) -> Schema:
    return {"type": "array", "items": items} | ({"minItems": at_least} if at_least else {})


def record(*required: str, **properties: Schema) -> Schema:
    """An object with at least these; ``required`` are the ones that must be there."""
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": True}


def model(name: str) -> Schema:
    """The field ``model``, with a name that works."""
    return {**NAME, "description": "A policy's name or alias, as `GET /v1/models` lists them.", "examples": [name]}


def requests(name: str) -> dict[str, Schema]:
    """Schemas of request bodies; ``name`` is a model that there is."""
    streaming = {"stream": FLAG, "stream_options": OBJECT_OR_NULL}
    item = record("role", "content", role={"enum": ["user", "assistant", "system", "developer"]}, content=NAME)
    tool = record("type", "name", type={"enum": ["function", "custom"]}, name=NAME)
    turn = record("role", role=TEXT, content={})
    metadata = {"metadata": {"description": "Rules may look into it; `task` and `conversation_id` are labels."}}
    anthropics = {
        "messages": listed(record("role", "content", role={"enum": ["user", "assistant"]}, content=NAME), at_least=1),
        "model": model(name),
        "system": TEXT,
    }
    return {
        "ChatRequest": record(
            "model", "messages", model=model(name), messages=listed(turn, at_least=1), **streaming, **metadata
        ),
        "ResponsesRequest": record(
            "model", "input", model=model(name), input={"anyOf": [NAME, listed(item, at_least=1)]},
            instructions=TEXT_OR_NULL, previous_response_id=TEXT_OR_NULL, store=FLAG, tools=listed(tool),
            **streaming, metadata=OBJECT_OR_NULL,
        ),
        "CompletionRequest": record(
            "model", "prompt", model=model(name), **streaming, echo=FLAG, suffix={"enum": [None, ""]},
            prompt={"anyOf": [TEXT, listed(TEXT, at_least=1) | {"maxItems": 1}]},
            logprobs={"type": ["integer", "null"], "minimum": 0},
            max_tokens={"type": ["integer", "null"], "default": 16},
        ) | {"not": record("echo", "logprobs", echo={"const": True}, logprobs=COUNT)},
        "EmbeddingsRequest": record(
            "model", "input", model=model(name), input={"anyOf": [NAME, listed({}, at_least=1)]}
        ),
        "MessagesRequest": record(
            "model", "messages", "max_tokens", **anthropics, max_tokens=LIMIT, stream=FLAG
        ),
        "CountRequest": record("model", "messages", **anthropics),
        "FeedbackRequest": record("request_id", request_id=NAME) | {
            "oneOf": [
                record("score", score={"type": "number", "minimum": 0, "maximum": 1}, verdict={"type": "null"}),
                record("verdict", verdict={"enum": ["good", "neutral", "bad"]}, score={"type": "null"}),
            ]
        },
    }  # fmt: skip


ANSWERS: dict[str, Schema] = {
    "ChatCompletion": record("choices", choices=listed(record("message", message=OBJECT), at_least=1)),
    "Completion": record(
        "id", "object", "choices", id=TEXT, object={"const": "text_completion"},
        choices=listed(
            record("index", "text", "logprobs", "finish_reason", index=COUNT, text=TEXT, logprobs=OBJECT_OR_NULL)
        ),
    ),
    "Response": record(
        "id", "object", "status", "output", id=TEXT, object={"const": "response"}, status=TEXT, output=listed(OBJECT)
    ),
    "ResponseDeleted": record("id", "deleted", id=TEXT, deleted={"const": True}),
    "Items": record("object", "data", object={"const": "list"}, data=listed(OBJECT)),
    "Embeddings": record("data", data=listed(OBJECT)),
    "Message": record(
        "id", "type", "role", "content", "model", "stop_reason", "usage", id=TEXT, type={"const": "message"},
        role={"const": "assistant"}, content=listed(record("type", type=TEXT)), model=TEXT, stop_reason=TEXT_OR_NULL,
        usage=record("input_tokens", "output_tokens", input_tokens=COUNT, output_tokens=COUNT),
    ),
    "TokenCount": record("input_tokens", input_tokens=COUNT),
    "Feedback": record(
        "object", "request_id", "score", object={"const": "feedback"}, request_id=TEXT,
        score={"type": "number", "minimum": 0, "maximum": 1},
    ),
    "Model": record(
        "id", "object", "created", "owned_by", id=TEXT, object={"const": "model"}, created={"type": "integer"},
        owned_by=TEXT,
    ),
    "Models": record("object", "data", object={"const": "list"}, data=listed({"$ref": "#/components/schemas/Model"})),
    "Event": record("data", data=TEXT, event=TEXT) | {"description": "One event of the stream."},
    "Live": record("status", status={"const": "live"}),
    "Ready": record("status", "policies", status={"enum": ["ready", "unready"]}, policies=listed(OBJECT)),
    "Error": record(
        "error",
        error=record(
            "message", "type", "param", "code", message=TEXT, type=TEXT, param=TEXT_OR_NULL, code=TEXT_OR_NULL
        ),
    ),
    "AnthropicError": record(
        "type", "error", type={"const": "error"}, error=record("type", "message", type=TEXT, message=TEXT)
    ),
}  # fmt: skip
