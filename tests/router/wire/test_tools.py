"""What a request lets an answer call."""

from __future__ import annotations

from typing import Any

import pytest

from router.errors import BadRequest
from router.wire.tools import NO_PARAMETERS, OfferedTools, shown

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
NOW = {"type": "function", "function": {"name": "now"}}
NAMED = {"type": "function", "function": {"name": "now"}}


@pytest.mark.parametrize(
    ("choice", "names", "must", "single"),
    [
        (None, {"weather", "now"}, False, False),
        ("auto", {"weather", "now"}, False, False),
        ("required", {"weather", "now"}, True, False),
        (NAMED, {"now"}, True, True),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}, {"now"}, False, False),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}, {"now"}, True, False),
    ],
)
def test_a_choice_leaves_some_of_the_tools(choice: Any, names: set[str], must: bool, single: bool) -> None:
    found = OfferedTools.of({"tools": [WEATHER, NOW], "tool_choice": choice})
    assert found is not None
    assert (set(found.parameters), found.must, found.single) == (names, must, single)


def test_what_may_not_be_called_is_not_offered_nor_shown() -> None:
    for body in ({}, {"tools": []}, {"tools": None}, {"tools": [NOW], "tool_choice": "none"}):
        assert OfferedTools.of(body) is None and shown(body) == []
    assert shown({"tools": [WEATHER, NOW], "tool_choice": NAMED}) == [WEATHER, NOW]


def test_a_function_without_parameters_takes_none_and_parallel_calls_can_be_declined() -> None:
    found = OfferedTools.of({"tools": [WEATHER, NOW], "parallel_tool_calls": False})
    assert found is not None and found.parameters == {"weather": CITY, "now": NO_PARAMETERS} and found.single
    older = OfferedTools.of({"functions": [{"name": "f", "parameters": CITY}]})
    assert older is not None and older.parameters == {"f": CITY}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": {"f": 1}}, "tools"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"tools": [NOW, {"type": "web_search"}]}, "tools[1]"),
        ({"tools": [NOW, NOW]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": 'a"b'}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a\nb"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "x" * 129}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}, None),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": "{}"}}]}, None),
        ({"tools": [NOW], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [NOW], "tool_choice": {"type": "function", "function": {"name": "later"}}}, "tool_choice"),
        ({"tools": [NOW], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
         "tool_choice"),
        ({"tools": [NOW], "tool_choice": ["now"]}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused_by_name(body: dict[str, Any], param: str | None) -> None:
    with pytest.raises(BadRequest) as refused:
        OfferedTools.of(body)
    assert refused.value.param == (param or "tools[0].function.parameters")
