"""``POST /v1/chat/completions``: OpenAI's chat requests, which the cascade takes as they are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from router.api.schemas import OBJECT, STREAMING, TEXT, Operation, listed, record
from router.api.surface import AskedChat
from router.errors import BadRequest
from router.wire.body import json_object, model_of
from router.wire.threads import aside

PATH = "/v1/chat/completions"

METADATA = {"description": "Rules may look into it; `task` and `conversation_id` are labels."}
TURNS = listed(record("role", role=TEXT, content={}), at_least=1)
CHAT_COMPLETION = record("choices", choices=listed(record("message", message=OBJECT), at_least=1))
DOCUMENT = {
    PATH: Operation(
        "Chat completions",
        (
            "ChatRequest",
            lambda model: record("model", "messages", model=model, messages=TURNS, **STREAMING, metadata=METADATA),
        ),
        ("ChatCompletion", CHAT_COMPLETION),
        streams=True,
    )
}


class ChatCompletions:
    """The surface that needs no translation."""

    async def asked(self, content: bytes, request_id: str, headers: Mapping[bytes, bytes]) -> AskedChat:
        return AskedChat(await aside(partial(parse, content), len(content)))


def parse(content: bytes) -> dict[str, Any]:
    """The request as far as the proxy itself relies on it; everything else is the backends' to judge.

    Raises:
        BadRequest: it is no JSON object, or ``model``, ``messages`` or ``stream`` are not what they must be.
    """
    body = json_object(content)
    model_of(body)
    check(body)
    return body


def check(body: Mapping[str, Any]) -> None:
    """Raises BadRequest where ``messages`` or ``stream`` are not what they must be."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("'messages' must be a list of at least one message", param="messages")
    for n, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequest(f"'messages[{n}]' must be an object with a 'role'", param=f"messages[{n}]")
    if not isinstance(body.get("stream"), bool | None):
        raise BadRequest("'stream' must be true or false", param="stream")
    if not isinstance(body.get("stream_options"), dict | None):
        raise BadRequest("'stream_options' must be an object", param="stream_options")


SHOWN_BELOW = "The result is in the next message."


def behind(call: str, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts of a tool's result, under a heading that says whose they are."""
    return [{"type": "text", "text": f"From the result of the tool call {call}:"}, *parts] if parts else []
