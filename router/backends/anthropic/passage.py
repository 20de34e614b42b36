"""A Claude client's own request, made fit to be passed on: whose turns are in it, and which of its fields go along."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from router.backends.anthropic.answer import is_signed

PASSED_ON = frozenset({
    "cache_control", "context_management", "max_tokens", "messages", "output_config", "output_format", "service_tier",
    "stop_sequences", "system", "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p",
})  # fmt: skip
"""What a client may say to Claude. All else stays here: what chooses another model, place or price (``fallbacks``,
``speed``, ``inference_geo``), whose account it is (``workspace_id``), and what no one knows."""

BETA = "anthropic-beta"

STANDARD = "standard_only"
"""The one ``service_tier`` that costs no more than what is said by none."""

DEARER = "context-1m-", "fast-mode-"
"""How the names in ``anthropic-beta`` begin that put a higher price on what is asked."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})


def own_words(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request as Claude takes it, but for ``model`` and ``stream``. Its turns are as they came, except for what
    other models wrote: thinking that Claude did not sign, and ids of tool calls in forms that Claude refuses."""
    kept = {k: v for k, v in body.items() if k in PASSED_ON}
    if kept.get("service_tier") != STANDARD:
        kept.pop("service_tier", None)
    if (managed := kept.pop("context_management", None)) is not None and (edits := _edits(managed)):
        kept["context_management"] = {"edits": edits}
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and "user_id" in metadata:
        kept["metadata"] = {"user_id": metadata["user_id"]}
    if isinstance(turns := body.get("messages"), list):
        ids = _Ids()
        kept["messages"] = [turn for turn in (_turn(t, ids) for t in turns) if turn is not None]
        if thinks_by_budget(kept) and unthought(kept["messages"]):
            del kept["thinking"]
    return kept


def own_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The request's headers but for what names a price."""
    names = [name.strip() for name in headers.get(BETA, "").split(",")]
    kept = [name for name in names if name and not name.lower().startswith(DEARER)]
    rest = {k: v for k, v in headers.items() if k != BETA}
    return rest | ({BETA: ", ".join(kept)} if kept else {})


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


def _turn(turn: Any, ids: _Ids) -> Any:
    """None where nothing of it is left."""
    content = turn.get("content") if isinstance(turn, dict) else None
    if not isinstance(content, list):
        return turn
    if turn.get("role") == "assistant":
        ids.begin()
    fresh = [block for block in (_block(b, ids) for b in content) if block is not None]
    if content and not fresh:
        return None
    return turn if fresh == content else {**turn, "content": fresh}


def _block(block: Any, ids: _Ids) -> Any:
    """None for a thought that is not Claude's."""
    match block:
        case {"type": "thinking"} if not is_signed(block):
            return None
        case {"type": "tool_use", "id": str(given)} if (fresh := ids.called(given)) != given:
            return {**block, "id": fresh}
        case {"type": "tool_result", "tool_use_id": str(given)} if (fresh := ids.answered(given)) != given:
            return {**block, "tool_use_id": fresh}
    return block


class _Ids:
    """Ids of tool calls over a conversation: each in a form that Claude takes, and there once, however a model
    counted its calls; results follow their calls."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._open: dict[str, list[str]] = {}

    def begin(self) -> None:
        """A turn that may call: what was called before has had its results."""
        self._open = {}

    def called(self, given: str) -> str:
        fresh, again = plain_id(given), 0
        while fresh in self._used:
            fresh, again = _hashed(f"{given} {len(self._used)} {again}"), again + 1
        self._used.add(fresh)
        self._open.setdefault(given, []).append(fresh)
        return fresh

    def answered(self, given: str) -> str:
        waiting = self._open.get(given)
        if not waiting:
            return plain_id(given)
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


def plain_id(given: str) -> str:
    """The same id for the same call: letters and digits alone."""
    return given if _PLAIN.fullmatch(given) else _hashed(given)


def _hashed(given: str) -> str:
    return "toolu_" + hashlib.blake2b(given.encode("utf-8", "replace"), digest_size=12).hexdigest()
