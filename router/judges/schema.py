"""The JSON schema that a request asks for, what each of its keywords asks (2020-12), and whether a value is valid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal, DecimalException
from typing import Any

import orjson

from router.judges.checks import Check, Test, Told, TooManySteps


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


TYPES: Mapping[str, Callable[[Any], bool]] = {
    "array": lambda v: isinstance(v, list),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: _is_number(v) and (isinstance(v, int) or v.is_integer()),
    "null": lambda v: v is None,
    "number": _is_number,
    "object": lambda v: isinstance(v, dict),
    "string": lambda v: isinstance(v, str),
}


def _type(check: Check, wanted: Any, value: Any, *_: Any) -> Told:
    names = wanted if isinstance(wanted, list) else [wanted]
    if len(names) > len(TYPES) or not all(isinstance(name, str) and name in TYPES for name in names):
        return None
    return any(TYPES[name](value) for name in names)


def _enum(check: Check, wanted: Any, value: Any, *_: Any) -> Told:
    if not isinstance(wanted, list):
        return None
    check.spend(len(wanted))
    if isinstance(value, str):
        return value in wanted
    key = check.key(value)
    return any(check.key(one) == key for one in wanted)


def _const(check: Check, wanted: Any, value: Any, *_: Any) -> Told:
    return check.key(wanted) == check.key(value)


def _bound(holds: Callable[[Any, Any], bool], measure: Callable[[Any], Any]) -> Test:
    """A keyword that compares a measure of the value with a number; ``measure`` is None where it has none."""

    def test(check: Check, wanted: Any, value: Any, *_: Any) -> Told:
        found = measure(value)
        if found is None:
            return True
        return holds(found, wanted) if _is_number(wanted) else None

    return test


def _number(value: Any) -> Any:
    return value if _is_number(value) else None


def _length(kind: type[Any]) -> Callable[[Any], int | None]:
    return lambda value: len(value) if isinstance(value, kind) else None


def _multiple(check: Check, wanted: Any, value: Any, *_: Any) -> Told:
    if not _is_number(value):
        return True
    if not _is_number(wanted) or wanted <= 0:
        return None
    try:
        return Decimal(str(value)) % Decimal(str(wanted)) == 0  # as they are written: 0.3 is a multiple of 0.1
    except (DecimalException, ValueError):  # ValueError: more digits than Python writes
        return None


def _unique(check: Check, wanted: Any, value: Any, *_: Any) -> Told:
    if wanted is not True or not isinstance(value, list):
        return None if not isinstance(wanted, bool) else True
    return len({check.key(item) for item in value}) == len(value)


def _required(check: Check, wanted: Any, value: Any, *_: Any) -> Told:
    if not isinstance(value, dict):
        return True
    if not isinstance(wanted, list):
        return None
    check.spend(len(wanted))
    return all(name in value for name in wanted) if all(isinstance(name, str) for name in wanted) else None


def _properties(check: Check, wanted: Any, value: Any, _: Any, depth: int) -> Told:
    if not isinstance(value, dict):
        return True
    if not isinstance(wanted, dict):
        return None
    check.spend(len(value))
    return check.every(((wanted[name], item) for name, item in value.items() if name in wanted), depth)


def _additional(check: Check, wanted: Any, value: Any, schema: Any, depth: int) -> Told:
    if not isinstance(value, dict):
        return True
    known = schema.get("properties", {})
    if not isinstance(known, dict):
        return None
    check.spend(len(value))
    found = check.every(((wanted, item) for name, item in value.items() if name not in known), depth)
    return None if found is False and schema.get("patternProperties") else found


def _names(check: Check, wanted: Any, value: Any, _: Any, depth: int) -> Told:
    return check.every(((wanted, name) for name in value), depth) if isinstance(value, dict) else True


def _dependent_required(check: Check, wanted: Any, value: Any, *_: Any) -> Told:
    if not isinstance(value, dict):
        return True
    if not isinstance(wanted, dict):
        return None
    check.spend(len(wanted))
    needed = [_required(check, names, value) for name, names in wanted.items() if name in value]
    return False if False in needed else None if None in needed else True


def _dependent_schemas(check: Check, wanted: Any, value: Any, _: Any, depth: int) -> Told:
    if not isinstance(value, dict):
        return True
    if not isinstance(wanted, dict):
        return None
    check.spend(len(wanted))
    return check.every(((one, value) for name, one in wanted.items() if name in value), depth)


def _items(check: Check, wanted: Any, value: Any, schema: Any, depth: int) -> Told:
    if not isinstance(value, list):
        return True
    before = schema.get("prefixItems", [])
    return check.every(((wanted, item) for item in value[len(before) :]), depth) if isinstance(before, list) else None


def _prefix_items(check: Check, wanted: Any, value: Any, _: Any, depth: int) -> Told:
    if not isinstance(value, list):
        return True
    return check.every(zip(wanted, value, strict=False), depth) if isinstance(wanted, list) else None


def _contains(check: Check, wanted: Any, value: Any, schema: Any, depth: int) -> Told:
    least, most = schema.get("minContains", 1), schema.get("maxContains", float("inf"))
    if not isinstance(value, list):
        return True
    if not (_is_number(least) and _is_number(most)):
        return None
    sure, perhaps = check.count(((wanted, item) for item in value), depth)
    if perhaps < least or sure > most:
        return False
    return True if sure >= least and perhaps <= most else None


def _all_of(check: Check, wanted: Any, value: Any, _: Any, depth: int) -> Told:
    return check.every(((one, value) for one in wanted), depth) if isinstance(wanted, list) else None


def _any_of(check: Check, wanted: Any, value: Any, _: Any, depth: int) -> Told:
    if not isinstance(wanted, list):
        return None
    told: Told = False
    for one in wanted:
        found = check.node(one, value, depth)
        if found is True:
            return True
        told = None if found is None else told
    return told


def _one_of(check: Check, wanted: Any, value: Any, _: Any, depth: int) -> Told:
    if not isinstance(wanted, list):
        return None
    sure, perhaps = check.count(((one, value) for one in wanted), depth)
    if sure > 1 or not perhaps:
        return False
    return True if sure == perhaps else None


def _not(check: Check, wanted: Any, value: Any, _: Any, depth: int) -> Told:
    found = check.node(wanted, value, depth)
    return None if found is None else not found


def _if(check: Check, wanted: Any, value: Any, schema: Any, depth: int) -> Told:
    found = check.node(wanted, value, depth)
    if found is not None:
        return check.node(schema.get("then" if found else "else", True), value, depth)
    either = [check.node(schema.get(name, True), value, depth) for name in ("then", "else")]
    return either[0] if either[0] is either[1] else None


def _unlooked(kind: type) -> Test:
    """A keyword that says something of this kind of values, and that is not looked at."""
    return lambda _, __, value, *___: None if isinstance(value, kind) else True


KEYWORDS: Mapping[str, Test] = {
    "$ref": lambda check, wanted, value, _, depth: check.reference(wanted, value, depth),
    "$dynamicRef": _unlooked(object),
    "additionalProperties": _additional,
    "allOf": _all_of,
    "anyOf": _any_of,
    "const": _const,
    "contains": _contains,
    "dependentRequired": _dependent_required,
    "dependentSchemas": _dependent_schemas,
    "enum": _enum,
    "exclusiveMaximum": _bound(lambda a, b: a < b, _number),
    "exclusiveMinimum": _bound(lambda a, b: a > b, _number),
    "if": _if,
    "items": _items,
    "maxItems": _bound(lambda a, b: a <= b, _length(list)),
    "maxLength": _bound(lambda a, b: a <= b, _length(str)),
    "maxProperties": _bound(lambda a, b: a <= b, _length(dict)),
    "maximum": _bound(lambda a, b: a <= b, _number),
    "minItems": _bound(lambda a, b: a >= b, _length(list)),
    "minLength": _bound(lambda a, b: a >= b, _length(str)),
    "minProperties": _bound(lambda a, b: a >= b, _length(dict)),
    "minimum": _bound(lambda a, b: a >= b, _number),
    "multipleOf": _multiple,
    "not": _not,
    "oneOf": _one_of,
    "pattern": _unlooked(str),
    "patternProperties": _unlooked(dict),
    "prefixItems": _prefix_items,
    "properties": _properties,
    "propertyNames": _names,
    "required": _required,
    "type": _type,
    "unevaluatedItems": _unlooked(list),
    "unevaluatedProperties": _unlooked(dict),
    "uniqueItems": _unique,
}
"""All that is heeded; others say nothing about validity, ``format`` too."""


def schema_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of ``response_format``; None where the request gives none, or a malformed one."""
    form = body.get("response_format")
    described = form.get("json_schema") if isinstance(form, Mapping) and form.get("type") == "json_schema" else None
    schema = described.get("schema") if isinstance(described, Mapping) else None
    return schema if isinstance(schema, Mapping) else None


def fits(value: object, schema: Mapping[str, Any]) -> Told:
    """Whether parsed JSON is valid against a schema, by draft 2020-12; None where that cannot be told: the schema
    is none, refers elsewhere or to itself, asks for what is not looked at here, or for more than ``MOST_STEPS``."""
    try:
        return Check(schema, KEYWORDS).node(schema, value, 0)
    except (TooManySteps, RecursionError, orjson.JSONEncodeError):
        return None
