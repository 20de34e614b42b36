"""A response's items, and the chat messages that they are."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import orjson

from router.api.chat import SHOWN_BELOW, behind
from router.errors import BadRequest

Item = dict[str, Any]

PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}
"""How an item's id begins, by its type: those that a chat request can say."""

REFUSED = {
    "compaction": "what it stands for can be read by one provider's models only; send the items themselves",
    "compaction_summary": "what it stands for can be read by one provider's models only; send the items themselves",
    "computer_call": "its actions are known to one provider's models only",
    "computer_call_output": "its actions are known to one provider's models only",
    "context_compaction": "what it stands for can be read by one provider's models only; send the items themselves",
    "mcp_approval_request": "MCP servers are connected to by one provider's own server only",
    "mcp_approval_response": "MCP servers are connected to by one provider's own server only",
}
"""Items without which the answer would be to another conversation. Those of other types are kept, and no model is shown
them: what a provider's server did at some time (``web_search_call``), what no one here knows yet."""

CLIENTS_CALLS = {f"{name}_call": name for name in ("apply_patch", "local_shell", "shell")}
"""Calls of tools that clients run, told in a form of their own, and the tool's name."""
CLIENTS_OUTPUTS = frozenset({f"{call}_output" for call in CLIENTS_CALLS})
_CALLS_OWN = frozenset({"call_id", "id", "status", "type"})

REFERENCE = "item_reference"


ID_DIGITS = 48


def new_ids(response_id: str) -> Callable[[str], str]:
    """Ids for a response's items, by their type. An id tells which response it belongs to (``owner_of``)."""
    stem, numbers = response_id.removeprefix("resp_"), itertools.count()
    return lambda kind: f"{PREFIXES.get(kind, 'item')}_{stem}{next(numbers):04x}"


def owner_of(item_id: str) -> str:
    """The response that made this id; any nonsense where none did."""
    return f"resp_{item_id.rpartition('_')[2][:ID_DIGITS]}"


def listed(given: object, new_id: Callable[[str], str]) -> list[Item]:
    """A request's ``input`` as items, each with ``type`` and (but for references) ``id``, as they are kept.

    Raises:
        BadRequest: it is neither a string nor a list of items, or an item is of a type that only a
            provider's own server could take up, and that the answer hangs on.
    """
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise BadRequest("'input' must be a string or a list of items", param="input")
    return [_item(item, f"input[{n}]", new_id) for n, item in enumerate(given)]


def _item(given: object, where: str, new_id: Callable[[str], str]) -> Item:
    if not isinstance(given, dict):
        raise BadRequest(f"'{where}' must be an object", param=where)
    kind = given.get("type") or ("message" if "role" in given else REFERENCE if "id" in given else None)
    kind = kind if isinstance(kind, str) else None
    if kind == REFERENCE:
        return {"type": REFERENCE, "id": string(given, "id", where)}
    if kind is None:
        raise BadRequest(f"'{where}' must have a 'type', as a string", param=f"{where}.type")
    if kind in REFUSED:
        raise BadRequest(f"'{where}' is of the type {kind!r}: {REFUSED[kind]}", param=f"{where}.type")
    item = {"status": "completed", **{k: v for k, v in given.items() if v is not None}, "type": kind}
    if not isinstance(item.get("id"), str):  # SDKs send back what they got, nulls too
        item["id"] = new_id(kind)
    if kind == "message" and isinstance(item.get("content"), str):
        text = item["content"]
        said = {"type": "output_text", "text": text, "annotations": []}
        item["content"] = [said if item.get("role") == "assistant" else {"type": "input_text", "text": text}]
    return item


class Transcript:
    """Chat messages, put together from items in their order. ``dropped``: the types of items that no chat request can
    say, and that the conversation can do without."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self._messages: list[dict[str, Any]] = []
        self._calls: set[str] = set()
        self._shown: list[dict[str, Any]] = []
        self._thoughts: list[str] = []
        self._reasoned: list[str] = []
        """The thoughts behind the calls that came last; joined once they are all there."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        self._close()
        return self._messages

    def add(self, item: Item, where: str) -> None:
        """Adds one item; ``where`` is its path in the request.

        Raises:
            BadRequest: no chat request can say it.
        """
        match item["type"]:
            case "message":
                self._add_message(item, where)
            case "function_call":
                function = {k: string(item, k, where) for k in ("name", "arguments")}
                self._add_call(string(item, "call_id", where), {"type": "function", "function": function})
            case "custom_tool_call":
                custom = {k: string(item, k, where) for k in ("name", "input")}
                self._add_call(string(item, "call_id", where), {"type": "custom", "custom": custom})
            case "function_call_output" | "custom_tool_call_output":
                self._add_output(item, where)
            case "reasoning":
                self._thoughts.append(_thought(item))
            case kind if kind in CLIENTS_CALLS:
                asked = orjson.dumps({k: v for k, v in item.items() if k not in _CALLS_OWN}).decode()
                function = {"name": CLIENTS_CALLS[kind], "arguments": asked}
                self._add_call(string(item, "call_id", where), {"type": "function", "function": function})
            case kind if kind in CLIENTS_OUTPUTS:
                output = item.get("output")
                text = output if isinstance(output, str) else orjson.dumps(output).decode()
                self._add_output({**item, "output": text}, where)
            case kind:
                self.dropped.append(kind)

    def _add_message(self, item: Item, where: str) -> None:
        role = string(item, "role", where)
        if role not in ("user", "system", "developer", "assistant"):
            raise BadRequest(
                f"'{where}.role' must be user, system, developer or assistant, not {role!r}", param=f"{where}.role"
            )
        content = _content(item.get("content"), f"{where}.content", TEXTS if role != "user" else PARTS)
        if role != "assistant":
            self._thoughts = []
        self._close()
        last = self._messages[-1] if self._messages else {}
        if role == "assistant" and last.get("tool_calls") and last["content"] is None:
            last["content"] = content  # one turn's words, told after its calls
        else:
            self._messages.append({"role": role, "content": content})

    def _add_call(self, call_id: str, call: dict[str, Any]) -> None:
        """Calls side by side are one turn's, together with the words before them, and with the thoughts: the model
        that wrote them wants them back with its calls."""
        if self._shown or not self._messages or self._messages[-1]["role"] != "assistant":
            self._close()
            self._messages.append({"role": "assistant", "content": None})
        self._messages[-1].setdefault("tool_calls", []).append({"id": call_id, **call})
        self._reasoned += self._thoughts
        self._thoughts = []
        self._calls.add(call_id)

    def _close(self) -> None:
        """Ends what items side by side add up to: what results held besides text stands behind all of them, since chat
        wants them next to each other."""
        self._reason()
        if self._shown:
            self._messages.append({"role": "user", "content": self._shown})
            self._shown = []

    def _reason(self) -> None:
        if thought := "".join(self._reasoned):
            turn = self._messages[-1]
            turn["reasoning_content"] = turn.get("reasoning_content", "") + thought
        self._reasoned = []

    def _add_output(self, item: Item, where: str) -> None:
        call_id = string(item, "call_id", where)
        if call_id not in self._calls:
            raise BadRequest(f"no tool call with the call_id {call_id!r} comes before its output", param=where)
        self._thoughts = []
        self._reason()
        content = _content(item.get("output"), f"{where}.output", PARTS)
        if isinstance(content, list):
            shown = [part for part in content if part["type"] != "text"]
            self._shown += behind(call_id, shown)
            content = "".join(part["text"] for part in content if part["type"] == "text")
            content = content if content or not shown else SHOWN_BELOW
        self._messages.append({"role": "tool", "tool_call_id": call_id, "content": content})


def _thought(item: Item) -> str:
    """A reasoning item's own words, as this proxy gave them; what a provider encrypted, or summed up, is not here."""
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    return "".join(text for p in parts if isinstance(p, dict) and isinstance(text := p.get("text"), str))


def string(values: Item, key: str, where: str) -> str:
    """A field that must be a string. Raises BadRequest."""
    value = values.get(key)
    if not isinstance(value, str):
        raise BadRequest(f"'{where}.{key}' must be given, as a string", param=f"{where}.{key}")
    return value


Part = Callable[[Item, str], dict[str, Any]]


def _text(part: Item, where: str) -> dict[str, Any]:
    return {"type": "text", "text": string(part, "text", where)}


def _refusal(part: Item, where: str) -> dict[str, Any]:
    return {"type": "text", "text": string(part, "refusal", where)}


def _image(part: Item, where: str) -> dict[str, Any]:
    """By URL (``data:`` too); ``detail`` as far as chat knows it."""
    if part.get("file_id"):
        raise BadRequest("an image must be given by its 'image_url'; 'file_id' is one provider's own", param=where)
    image, detail = {"url": string(part, "image_url", where)}, part.get("detail")
    if isinstance(detail, str):
        image["detail"] = "high" if detail == "original" else detail
    return {"type": "image_url", "image_url": image}


def _audio(part: Item, where: str) -> dict[str, Any]:
    if not isinstance(part.get("input_audio"), dict):
        raise BadRequest(f"'{where}.input_audio' must be an object", param=f"{where}.input_audio")
    return {"type": "input_audio", "input_audio": part["input_audio"]}


def _file(part: Item, where: str) -> dict[str, Any]:
    if part.get("file_url"):
        raise BadRequest("a file must be given by its 'file_data'; chat has no 'file_url'", param=f"{where}.file_url")
    file = {k: part[k] for k in ("file_id", "file_data", "filename") if part.get(k) is not None}
    if not file.keys() & {"file_id", "file_data"}:
        raise BadRequest(f"'{where}' has no 'file_data'", param=f"{where}.file_data")
    return {"type": "file", "file": file}


TEXTS: dict[str, Part] = {"input_text": _text, "output_text": _text, "text": _text, "refusal": _refusal}
PARTS: dict[str, Part] = TEXTS | {"input_image": _image, "input_audio": _audio, "input_file": _file}


def _content(given: object, where: str, known: dict[str, Part]) -> str | list[dict[str, Any]]:
    """Chat's content. Text alone, however it was cut, is a plain string: every backend takes it, and one
    conversation has one opening, whichever form its client sends."""
    if isinstance(given, str):
        return given
    if not isinstance(given, list):
        raise BadRequest(f"'{where}' must be a string or a list of parts", param=where)
    parts = []
    for n, part in enumerate(given):
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in known:
            at = f"{where}[{n}].type"
            raise BadRequest(f"'{at}' is {kind!r}; here it can be {', '.join(known)}", param=at)
        parts.append(known[kind](part, f"{where}[{n}]"))
    texts = [part["text"] for part in parts if part["type"] == "text"]
    return "".join(texts) if len(texts) == len(parts) and (len(parts) < 2 or known is TEXTS) else parts
