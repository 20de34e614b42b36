"""A Claude client's own request, made fit to be passed on: whose turns are in it, and which of its fields go along."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

PASSED_ON = frozenset({
    "cache_control", "context_management", "max_tokens", "messages", "output_config", "output_format", "service_tier",
    "stop_sequences", "system", "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p",
})  # fmt: skip
"""What a client may say to Claude. All else stays here: what chooses another model, place or price (``fallbacks``,
``speed``, ``inference_geo``), whose account it is (``workspace_id``), and what no one knows."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})

OURS = "locum."
"""How a signature begins that this proxy made: what another model must get back, in the place where clients keep it."""


def own_words(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request as Claude takes it, but for ``model`` and ``stream``. Its turns are as they came, except for what
    other models wrote: thinking that Claude did not sign, and ids of tool calls in forms that Claude refuses."""
    kept = {k: v for k, v in body.items() if k in PASSED_ON}
    if (managed := kept.pop("context_management", None)) is not None and (edits := _edits(managed)):
        kept["context_management"] = {"edits": edits}
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and "user_id" in metadata:
        kept["metadata"] = {"user_id": metadata["user_id"]}
    if isinstance(turns := body.get("messages"), list):
        kept["messages"] = [turn for turn in map(_turn, turns) if turn is not None]
        if thinks_by_budget(kept) and unthought(kept["messages"]):
            del kept["thinking"]
    return kept


def _edits(managed: Any) -> list[Any]:
    """What is cleared of a long conversation. Summaries that Claude's servers write (compaction) are left out: what
    they leave in the conversation no other model could go on from."""
    edits = managed.get("edits") if isinstance(managed, dict) else None
    listed = edits if isinstance(edits, list) else []
    return [e for e in listed if isinstance(e, dict) and str(e.get("type")).startswith("clear_")]


def thinks_by_budget(body: Mapping[str, Any]) -> bool:
    thinking = body.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") == "enabled"


def unthought(turns: list[Any]) -> bool:
    """Whether a tool loop is under way that began without thinking, as another model's does: Claude does not begin
    to think inside of one, and told to, it refuses."""
    for at in range(len(turns) - 1, 0, -1):
        turn, asked = turns[at], turns[at - 1]
        if not isinstance(turn, dict) or not _has(turn, {"tool_result"}) or not isinstance(asked, dict):
            return False
        if asked.get("role") == "assistant":
            return not _has(asked, _THOUGHTS)
    return False


def _has(turn: Mapping[str, Any], kinds: frozenset[str] | set[str]) -> bool:
    content = turn.get("content")
    return isinstance(content, list) and any(isinstance(b, dict) and b.get("type") in kinds for b in content)


def _turn(turn: Any) -> Any:
    """None where nothing of it is left."""
    content = turn.get("content") if isinstance(turn, dict) else None
    if not isinstance(content, list):
        return turn
    fresh = [block for block in map(_block, content) if block is not None]
    if content and not fresh:
        return None
    return turn if fresh == content else {**turn, "content": fresh}


def _block(block: Any) -> Any:
    """None for a thought that is not Claude's."""
    if not isinstance(block, dict):
        return block
    kind = block.get("type")
    if kind == "thinking" and not is_claudes(block.get("signature")):
        return None
    field = {"tool_use": "id", "tool_result": "tool_use_id"}.get(kind) if isinstance(kind, str) else None
    given = block.get(field) if field else None
    if field and isinstance(given, str) and given and not _PLAIN.fullmatch(given):
        return {**block, field: plain_id(given)}
    return block


def is_claudes(signature: Any) -> bool:
    return isinstance(signature, str) and bool(signature) and not signature.startswith(OURS)


def plain_id(given: str) -> str:
    """The same id for the same call: letters and digits alone."""
    if _PLAIN.fullmatch(given):
        return given
    return "toolu_" + hashlib.blake2b(given.encode("utf-8", "replace"), digest_size=12).hexdigest()
