"""A schema is a client's word: what it says of a value is told in bounded work, or not at all."""

from __future__ import annotations

import random
from typing import Any

import jsonschema
import pytest

from router.judges.schema import fits

ADDRESS = {"type": "object", "required": ["city"], "properties": {"city": {"type": "string", "minLength": 1}}}
PERSON = {
    "$defs": {"address": ADDRESS, "people": {"type": "array", "items": {"$ref": "#"}}},
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "home": {"$ref": "#/$defs/address"},
        "friends": {"$ref": "#/$defs/people"},
    },
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "right"),
    [
        ({"name": "a"}, True),
        ({"name": "a", "home": {"city": "Bern"}, "friends": [{"name": "b", "friends": []}]}, True),
        ({"name": "a", "home": {"city": ""}}, False),
        ({"name": "a", "friends": [{"name": "b", "friends": [{}]}]}, False),
        ({"name": "a", "age": 1}, False),
        ([], False),
    ],
)
def test_a_schema_with_references_is_heeded_as_deep_as_the_value_goes(value: Any, right: bool) -> None:
    assert fits(value, PERSON) is right


def doubling(word: str, depth: int, last: Any) -> dict[str, Any]:
    """Each definition asks the one before it twice: 2**depth checks for who looks each time."""
    chain: dict[str, Any] = {"d0": last}
    for n in range(1, depth + 1):
        before = {"$ref": f"#/$defs/d{n - 1}"}
        chain[f"d{n}"] = {word: [{**before, "maxProperties": 9}, {**before, "minProperties": 0}]}
    return {"$defs": chain, "$ref": f"#/$defs/d{depth}"}


@pytest.mark.parametrize(("word", "valid"), [("allOf", True), ("anyOf", True), ("oneOf", False)])
def test_definitions_that_double_are_asked_once_each(word: str, valid: bool) -> None:
    assert fits({"a": 1}, doubling(word, 24, {"type": "object"})) is valid
    assert fits({"a": 1}, doubling(word, 24, {"type": "array"})) is False
    assert fits({"a": 1}, doubling("not", 24, True)) is None


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ({"a": 1}, {"$ref": "#"}),
        ({"a": 1}, {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        (1, {"$ref": "#/nowhere"}),
        (1, {"$ref": "http://localhost/schema.json"}),
        (1, {"$ref": "file:///etc/passwd"}),
        (1, {"$ref": 5}),
        (1, {"$ref": "#" + "/a" * 100_000}),
        (1, {"$dynamicRef": "#a"}),
        (1, {"type": "nonsense"}),
        (1, {"type": ["number", 5]}),
        (1, {"allOf": {"a": 1}}),
        ({}, {"required": 5}),
        ({}, {"required": [{}]}),
        ({"a": 1}, {"properties": {"a": 7}}),
        ({"a": 1}, {"properties": {"a": {"$id": "http://[::", "type": "string"}}}),
        ({"a": 1}, {"patternProperties": {"(a+)+$": {}}}),
        ({"a": 1}, {"unevaluatedProperties": False}),
        ([1], {"unevaluatedItems": False}),
        ("a" * 64 + "!", {"pattern": "^(a+)+$"}),
        ("a" * 64 + "!", {"not": {"pattern": "^(a+)+$"}}),
        (5, {"enum": list(range(1_000_000))}),
        ({"a": 1}, {"required": ["a"] * 1_000_000}),
        ({"a": 1}, {"allOf": [{}] * 1_000_000}),
        ({"a": 1}, {"anyOf": [{"type": "array"}] * 1_000_000}),
        ({"a": "x" * 1_000_000}, {"allOf": [{"const": {"a": "y" * 1_000_000}}] * 1_000}),
        ([{"a": [i]} for i in range(100_000)], {"uniqueItems": True}),
        (dict.fromkeys(map(str, range(2_000)), 1), {"allOf": [{"properties": {}}] * 2_000}),
        (1e308, {"multipleOf": 1e-300}),
        (5, {"multipleOf": 0}),
    ],
)
def test_what_cannot_be_told_is_no_fault(value: Any, schema: dict[str, Any]) -> None:
    assert fits(value, schema) is None


def nested(depth: int, *, schema: bool = False) -> Any:
    found: Any = {} if schema else 1
    for _ in range(depth):
        found = {"items": found} if schema else [found]
    return found


def test_what_is_nested_too_deep_cannot_be_told() -> None:
    assert fits(nested(60), nested(60, schema=True)) is True
    assert fits(nested(900), nested(900, schema=True)) is None
    assert fits(nested(900), {"const": nested(900)}) is None


def test_a_fault_is_told_beside_what_cannot_be() -> None:
    assert fits(5, {"pattern": "a", "type": "string"}) is False
    assert fits("b", {"pattern": "a", "maxLength": 0}) is False
    assert fits("b", {"anyOf": [{"pattern": "a"}, {"type": "string"}]}) is True
    assert fits("b", {"oneOf": [{"pattern": "a"}, {"type": "string"}]}) is None
    assert fits({"a": "b"}, {"properties": {"a": {"pattern": "a"}}, "required": ["c"]}) is False
    assert fits({"a": 1}, {"if": {"patternProperties": {"a": {}}}, "then": {"maxProperties": 0}}) is None
    assert fits(["b"], {"contains": {"pattern": "a"}, "minContains": 2}) is False


def test_a_large_table_is_checked_whole() -> None:
    row = {"type": "object", "properties": {f"c{i}": {"type": "number"} for i in range(10)}}
    table = [{f"c{i}": 1.5 for i in range(10)} for _ in range(500)]
    assert fits(table, {"type": "array", "items": row}) is True
    table[-1]["c9"] = "high"
    assert fits(table, {"type": "array", "items": row}) is False


# Beside the library that implements all of the draft: where something is told, it is the same.

VALUES: list[Any] = [
    None, True, False, 0, 1, 1.0, -1, 2.5, 3, "", "a", "abc", [], [1], [1, 1.0], [True, 1], [[1], [1.0]], ["a", 2, {}],
    [{"a": 1}, {"a": 1.0}], {}, {"a": 1}, {"a": "abc", "b": [1, 2]}, {"b": {"a": {"a": 1}}}, {"c": None, "a": []},
]  # fmt: skip
TYPES = ["null", "boolean", "integer", "number", "string", "array", "object"]


def some_schema(draw: random.Random, depth: int = 3) -> Any:
    if depth == 0 or draw.random() < 0.1:
        return draw.choice([True, False, {}, {"type": draw.choice(TYPES)}, {"$ref": "#/$defs/x"}])
    deeper = [some_schema(draw, depth - 1) for _ in range(2)]
    names = draw.sample(["a", "b", "c"], 2)
    few = draw.randrange(4)
    words: dict[str, Any] = {
        "type": draw.choice([draw.choice(TYPES), draw.sample(TYPES, 3)]),
        "enum": draw.sample(VALUES, 6), "const": draw.choice(VALUES), "minimum": few, "exclusiveMaximum": few,
        "maximum": few, "exclusiveMinimum": few, "multipleOf": 1 + few, "minLength": few, "maxLength": few,
        "minItems": few, "maxItems": few, "uniqueItems": draw.random() < 0.8, "required": names,
        "minProperties": few, "maxProperties": few, "properties": dict(zip(names, deeper, strict=True)),
        "additionalProperties": deeper[0], "propertyNames": {"maxLength": few, "enum": names},
        "dependentRequired": {names[0]: names}, "dependentSchemas": {names[0]: deeper[0]}, "items": deeper[0],
        "prefixItems": deeper, "contains": deeper[1], "minContains": few, "maxContains": few, "allOf": deeper,
        "anyOf": deeper, "oneOf": deeper, "not": deeper[0], "if": deeper[0], "then": deeper[1], "else": deeper[0],
        "$ref": "#/$defs/x", "format": "date", "description": "words",
    }  # fmt: skip
    return {word: words[word] for word in draw.sample(sorted(words), 4)}


@pytest.mark.parametrize("seed", range(8))
def test_what_is_told_is_what_the_draft_says(seed: int) -> None:
    draw, told = random.Random(seed), 0
    for _ in range(150):
        schema = some_schema(draw)
        if not isinstance(schema, dict):
            continue
        schema["$defs"] = {"x": {"type": draw.choice(TYPES)}}
        for value in VALUES:
            found = fits(value, schema)
            told += found is not None
            if found is not None:
                assert found is jsonschema.Draft202012Validator(schema).is_valid(value), (schema, value)
    assert told > 2_500
