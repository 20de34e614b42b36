"""What clients call their conversations and their users: each has a place of its own for it (docs/clients.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

HEADERS = (
    b"x-locum-conversation",
    b"x-claude-code-session-id",
    b"thread-id",
    b"conversation_id",
    b"conversation-id",
    b"x-conversation-id",
    b"session-id",
    b"session_id",
    b"x-session-id",
    b"x-opencode-session",
    b"x-session-affinity",
    b"x-openwebui-chat-id",
    b"x-litellm-session-id",
    b"helicone-session-id",
)
"""Most particular first: Codex sends a thread's beside its session's."""
FIELDS = ("conversation_id", "thread_id", "session_id", "chat_id", "litellm_session_id")
"""In ``metadata``, or beside it."""
_SESSION = "_session_"


def conversation_named(headers: Mapping[bytes, bytes], body: Mapping[str, Any]) -> str | None:
    """The client's own name for the conversation, None where it has none."""
    return next(_names(headers, body), None)


def _names(headers: Mapping[bytes, bytes], body: Mapping[str, Any]) -> Iterator[str]:
    for header in HEADERS:
        if said := headers.get(header, b"").decode("latin-1").strip():
            yield said
    metadata = body.get("metadata")
    for fields in (metadata if isinstance(metadata, dict) else {}, body):
        for field in FIELDS:
            if isinstance(name := fields.get(field), str) and name:
                yield name
    if isinstance(metadata, dict) and (session := user_and_session(metadata.get("user_id"))[1]):
        yield session


def user_and_session(user_id: object) -> tuple[str | None, str | None]:
    """Anthropic's ``metadata.user_id``, in which Claude Code names the session too: as JSON, or behind the account."""
    if not isinstance(user_id, str):
        return None, None
    if user_id.startswith("{"):
        try:
            said = orjson.loads(user_id)
        except orjson.JSONDecodeError:
            return user_id, None
        session = said.get("session_id") if isinstance(said, dict) else None
        if isinstance(session, str) and session:
            who = "/".join(str(said[k]) for k in ("account_uuid", "device_id") if said.get(k))
            return who or None, session
    elif _SESSION in user_id:
        who, _, session = user_id.rpartition(_SESSION)
        return (who or None, session) if session else (user_id, None)
    return user_id, None


def user_named(body: Mapping[str, Any]) -> str | None:
    """The client's word for its user: OpenAI's ``user``, or what takes its place there."""
    for field in ("user", "safety_identifier"):
        if isinstance(name := body.get(field), str) and name:
            return name[:128]
    return None
