"""How a student writes its calls of tools: in its own chat template's form, which is read off it, else in Hermes's.

A form is four texts around names and arguments (JSON)::

    opening NAME between ARGUMENTS [then NAME between ARGUMENTS ...] closing

The same form writes what a student is trained on, holds its answers (``router.engine.grammar``) and reads them back
(``router.engine.call_reader``). A template that shows no tools gets ``WORDS`` in front: tools stand in the system
message then, calls in answers and results in turns of the user's, as the open models of the Hermes family have them. A
trained student keeps that template, so that llama-server and vLLM ask it as it was trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]
Render = Callable[[Sequence[Message], Sequence[Mapping[str, Any]]], str | None]
"""(messages, tools) -> what a template makes of them; None where it refuses."""

WORDS = r"""
{%- set kept = namespace(turns=[], said='', results=false, any=false) -%}
{%- for turn in messages -%}
  {%- if turn.tool_calls or turn.role == 'tool' -%}{%- set kept.any = true -%}{%- endif -%}
{%- endfor -%}
{%- if tools or kept.any -%}
  {%- if tools -%}
    {%- set kept.said = 'These functions can be called:\n<tools>' -%}
    {%- for tool in tools -%}{%- set kept.said = kept.said + '\n' + (tool.function | tojson) -%}{%- endfor -%}
    {%- set kept.said = kept.said + '\n</tools>\nA call is written so, a block for each, with arguments as JSON:\n' -%}
    {%- set kept.said = kept.said + '<tool_call>\n{"name": "NAME", "arguments": ARGUMENTS}\n</tool_call>' -%}
    {%- if messages and messages[0].role == 'system' -%}
      {%- set kept.said = messages[0].content + '\n\n' + kept.said -%}
    {%- endif -%}
    {%- set kept.turns = [{'role': 'system', 'content': kept.said}] -%}
  {%- endif -%}
  {%- for turn in messages -%}
    {%- if turn.role == 'tool' -%}
      {%- set said = '<tool_response>\n' + turn.content + '\n</tool_response>' -%}
      {%- set kept.said = kept.said + '\n' + said if kept.results else said -%}
      {%- set before = kept.turns[:-1] if kept.results else kept.turns -%}
      {%- set kept.turns = before + [{'role': 'user', 'content': kept.said}] -%}
    {%- elif turn.tool_calls -%}
      {%- set kept.said = turn.content or '' -%}
      {%- for call in turn.tool_calls -%}
        {%- set given = call.function.arguments -%}
        {%- set given = given if given is string else given | tojson -%}
        {%- set kept.said = kept.said + ('\n' if kept.said else '') + '<tool_call>\n{"name": "' + call.function.name -%}
        {%- set kept.said = kept.said + '", "arguments": ' + given + '}\n</tool_call>' -%}
      {%- endfor -%}
      {%- set kept.turns = kept.turns + [{'role': 'assistant', 'content': kept.said}] -%}
    {%- elif not (tools and loop.first and turn.role == 'system') -%}
      {%- set kept.turns = kept.turns + [turn] -%}
    {%- endif -%}
    {%- set kept.results = turn.role == 'tool' -%}
  {%- endfor -%}
  {%- set messages = kept.turns -%}
{%- endif %}
"""
"""What comes in front of a chat template that shows no tools: it tells of them in messages that any template takes, and
changes nothing where there are none."""

SAID, NAME, OTHER, ID = "locum said", "locum_tool", "locum_other", "lcm000000"
ARGUMENTS: Mapping[str, str] = {"locum_key": "locum_value"}
TOOL = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "Nothing.",
        "parameters": {"type": "object", "properties": {"locum_key": {"type": "string"}}},
    },
}


@dataclass(frozen=True, slots=True)
class CallForm:
    """``then``: what stands between one call's arguments and the next one's name; None where a template has one call
    alone. ``joint``: between what is said before the calls and these."""

    opening: str
    between: str
    then: str | None
    closing: str
    joint: str = "\n"

    @property
    def mark(self) -> str:
        """The beginning that tells of a call."""
        return self.opening.split(maxsplit=1)[0]

    def written(self, said: str, calls: Sequence[tuple[str, Any]]) -> str:
        """An answer that says something, or nothing, and calls these: (name, arguments).

        Raises:
            ValueError: several calls are more than the template has.
        """
        if len(calls) > 1 and self.then is None:
            raise ValueError("its chat template has one call an answer")
        each = [f"{name}{self.between}{dumped(arguments)}" for name, arguments in calls]
        return f"{said}{self.joint if said else ''}{self.opening}{(self.then or '').join(each)}{self.closing}"


def dumped(value: Any) -> str:
    """JSON as chat templates write it."""
    return json.dumps(value, ensure_ascii=False)


def shows_tools(render: Render) -> bool:
    """Whether a template does anything with tools."""
    return NAME in (render([{"role": "user", "content": SAID}], [TOOL]) or "")


def form_of(render: Render) -> CallForm | None:
    """The form in which a template writes calls; None where it is none that could be read back."""

    def answer(said: str, *names: str) -> str | None:
        calls = [{"id": ID, "type": "function", "function": {"name": n, "arguments": dict(ARGUMENTS)}} for n in names]
        turn = {"role": "assistant", "content": said, **({"tool_calls": calls} if calls else {})}
        return render([{"role": "user", "content": "locum asked"}, turn], [TOOL])

    plain, one, two, both = answer(SAID), answer("", NAME), answer("", NAME, OTHER), answer(SAID, NAME)
    if plain is None or one is None or SAID not in plain:
        return None
    head, end = plain.rsplit(SAID, 1)
    head = head.rstrip()
    if not one.startswith(head) or not one.endswith(end):
        return None
    parts = _parted(one[len(head) : len(one) - len(end)].lstrip(), NAME)
    if parts is None:
        return None
    opening, between, closing = parts
    then = two.rsplit(dumped(ARGUMENTS), 2)[1].split(OTHER)[0] if two and two.count(dumped(ARGUMENTS)) > 1 else None
    joint = both.rsplit(SAID, 1)[1].split(opening)[0] if both and SAID in both and opening in both else "\n"
    form = CallForm(opening, between, then, closing, joint)
    varies = any(ID in text for text in (opening, between, then or "", closing))
    return None if varies or not opening or not between or joint.strip() else form


def _parted(text: str, name: str) -> tuple[str, str, str] | None:
    opening, found, rest = text.partition(name)
    between, also, closing = rest.partition(dumped(ARGUMENTS))
    return (opening, between, closing) if found and also else None
