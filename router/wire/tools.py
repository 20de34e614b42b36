"""The tools that a request offers: which of them an answer may call, and whether it must."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from router.errors import BadRequest

LONGEST_NAME = 128
NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
"""What a function without parameters takes."""


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """``parameters``: the JSON schema of each function that may be called, by name; None for a custom tool, which takes
    any text. ``must``: the answer has to call one. ``single``: it may call no more than one."""

    parameters: Mapping[str, Mapping[str, Any] | None]
    must: bool = False
    single: bool = False

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self | None:
        """What a chat request offers; None where nothing may be called.

        Raises:
            BadRequest: a tool or the choice among them is malformed; ``param`` names it.
        """
        listed = body.get("tools") or []
        if not isinstance(listed, list):
            raise BadRequest("tools must be a list", param="tools")
        tools = [_tool(tool, f"tools[{n}]") for n, tool in enumerate(listed)]
        older = body.get("functions") if not tools else None
        tools += [_function(one, f"functions[{n}]") for n, one in enumerate(older if isinstance(older, list) else ())]
        parameters = dict(tools)
        if len(parameters) < len(tools):
            raise BadRequest("two tools have one name", param="tools")
        offered = cls(parameters, single=body.get("parallel_tool_calls") is False)
        chosen = offered._chosen(body.get("tool_choice"))
        if not tools and chosen is not None and chosen.must:
            raise BadRequest("tool_choice asks for a tool where there is none", param="tool_choice")
        return chosen if tools else None

    def _chosen(self, choice: Any) -> Self | None:
        """Those that a ``tool_choice`` leaves."""
        match choice:
            case None | "auto":
                return self
            case "none":
                return None
            case "required":
                return replace(self, must=True)
            case {"type": "allowed_tools", "allowed_tools": {"tools": [*listed], "mode": "auto" | "required" as mode}}:
                return replace(self._only([_named(tool) for tool in listed]), must=mode == "required")
            case {"type": "function", "function": {"name": str(name)}} | {
                "type": "custom",
                "custom": {"name": str(name)},
            }:
                return replace(self._only([name]), must=True, single=True)
        expected = "'none', 'auto', 'required', one of the tools by name, or some of them as 'allowed_tools'"
        raise BadRequest(f"tool_choice must be {expected}", param="tool_choice")

    def _only(self, names: Sequence[str | None]) -> Self:
        if not names or not self.parameters.keys() >= set(names):
            raise BadRequest("tool_choice names what is none of the tools", param="tool_choice")
        return replace(self, parameters={name: self.parameters[name] for name in names if name is not None})


def shown(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tools that a student is shown: all that are offered, since a choice among them holds the answer alone, and
    none where none may be called."""
    listed = body.get("tools")
    if not isinstance(listed, list) or body.get("tool_choice") == "none":
        return []
    return [tool for tool in listed if isinstance(tool, dict)]


def _tool(tool: Any, where: str) -> tuple[str, Mapping[str, Any] | None]:
    match tool:
        case {"type": "custom", "custom": {"name": str(name)}}:
            return _checked(name, where), None
        case {"type": "function", "function": dict(function)}:
            return _function(function, f"{where}.function")
    raise BadRequest(f"{where} must be of type 'function', with a name and a schema for its parameters", param=where)


def _function(function: Any, where: str) -> tuple[str, Mapping[str, Any]]:
    name = function.get("name") if isinstance(function, dict) else None
    parameters = function.get("parameters") if isinstance(function, dict) else None
    if parameters is not None and not isinstance(parameters, dict):
        raise BadRequest(f"{where}.parameters must be a JSON schema", param=f"{where}.parameters")
    return _checked(name, where), parameters or NO_PARAMETERS


def _checked(name: Any, where: str) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not _is_plain(name):
        raise BadRequest(
            f"{where}.name must be a name of at most {LONGEST_NAME} plain characters", param=f"{where}.name"
        )
    return name


def _is_plain(name: str) -> bool:
    return name.isprintable() and not {'"', "\\", " "} & set(name)


def _named(tool: Any) -> str | None:
    match tool:
        case {"type": "function", "function": {"name": str(name)}} | {"type": "custom", "custom": {"name": str(name)}}:
            return name
        case {"name": str(name)}:
            return name
    return None
