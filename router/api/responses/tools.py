"""A request's tools as chat has them; those that only a provider's own server runs are left out, or refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from router.api.responses.items import string
from router.errors import BadRequest

CLIENTS = ("function", "custom")
"""Tools that the client runs: any model can call them."""

NEEDED = {
    "apply_patch": "declare it as a function or a custom tool",
    "code_interpreter": "run the code in the client, by a function",
    "computer": "its actions are known to one provider's models only",
    "computer_use_preview": "its actions are known to one provider's models only",
    "file_search": "search in the client, by a function",
    "local_shell": "declare it as a function",
    "mcp": "connect to MCP servers from the client, and declare their tools as functions",
    "shell": "declare it as a function",
}
"""Tools without which an answer would be another one than was asked for, and what to do instead. Any other kind (a
search of the web, a generator of images, what is invented tomorrow) a model can do without where it may choose."""

_NAME = re.compile(r"[a-z0-9_]{1,40}")


def tools_of(body: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """(the chat request's fields about tools, the kinds that were left out).

    Raises:
        BadRequest: a tool is malformed, or one is left out that the answer needs.
    """
    kept, dropped = [], []
    for n, tool in enumerate(body.get("tools") or []):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str):
            raise BadRequest(f"'tools[{n}]' must be an object with a 'type'", param=f"tools[{n}]")
        if kind in CLIENTS:
            kept.append(_tool(tool, kind, f"tools[{n}]"))
        elif kind in NEEDED:
            why = f"'tools[{n}]' is of the type {kind!r}, which runs on one provider's own server; {NEEDED[kind]}"
            raise BadRequest(why, param=f"tools[{n}].type")
        else:
            dropped.append(named(kind))
    choice = body.get("tool_choice")
    if dropped and not kept and choice == "required":
        why = f"'tool_choice' requires a tool, and none is left: {', '.join(dropped)} runs on one provider's own server"
        raise BadRequest(why, param="tool_choice")
    found: dict[str, Any] = {}
    if kept:
        found = {"tools": kept, "parallel_tool_calls": body.get("parallel_tool_calls")}
    if kept or choice not in ("auto", "none"):  # chat takes neither of these words without tools
        found["tool_choice"] = _choice(choice)
    return found, dropped


def named(kind: str) -> str:
    """A kind of tool or item as it can stand in a header."""
    return kind if _NAME.fullmatch(kind) else "other"


def _tool(tool: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    """One level deeper, as chat has it."""
    string(dict(tool), "name", where)
    keys = ("name", "description", "parameters", "strict") if kind == "function" else ("name", "description")
    inner = {k: tool[k] for k in keys if tool.get(k) is not None}
    if kind == "custom" and isinstance(form := tool.get("format"), dict):
        grammar = {k: v for k, v in form.items() if k != "type"}
        inner["format"] = {"type": "grammar", "grammar": grammar} if form.get("type") == "grammar" else form
    return {"type": kind, kind: inner}


def _choice(choice: Any) -> Any:
    """Chat's ``tool_choice``. One of several tools may be left out, where others are allowed beside it."""
    if choice is None or isinstance(choice, str):
        return choice
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind in CLIENTS:
        return {"type": kind, kind: {"name": string(choice, "name", "tool_choice")}}
    if kind == "allowed_tools" and isinstance(choice.get("tools"), list):
        ours = [t for t in choice["tools"] if isinstance(t, dict) and t.get("type") in CLIENTS]
        if ours:
            allowed = {"mode": choice.get("mode", "auto"), "tools": [_choice(tool) for tool in ours]}
            return {"type": kind, kind: allowed}
    why = f"'tool_choice' names a tool of the type {kind!r}, which runs on one provider's own server"
    raise BadRequest(why, param="tool_choice")
