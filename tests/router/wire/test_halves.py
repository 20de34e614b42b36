"""Characters cut in two between the events of a stream."""

from __future__ import annotations

from typing import Any

import pytest

from router.wire.halves import LOST, Halves

FIRST, SECOND, EMOJI = "\ud83d", "\ude00", "\U0001f600"


def chunk(delta: dict[str, Any], finish: Any = None, index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def joined(*chunks: dict[str, Any], field: str = "content") -> tuple[str, bool]:
    """(the text that the chunks add up to, whether all of it is there)."""
    halves = Halves()
    whole = [halves.join(c) for c in chunks]
    texts = (c["choices"][0]["delta"].get(field) or "" for c in chunks)
    return "".join(texts), all(whole) and not halves.waiting


@pytest.mark.parametrize("field", ["content", "refusal", "reasoning", "reasoning_content"])
def test_two_halves_of_one_character_are_it(field: str) -> None:
    assert joined(chunk({field: f"a{FIRST}"}), chunk({field: f"{SECOND}b"}), field=field) == (f"a{EMOJI}b", True)


def test_two_halves_in_one_event_are_one_character() -> None:
    assert joined(chunk({"content": f"a{FIRST}{SECOND}b"})) == (f"a{EMOJI}b", True)


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ((f"a{FIRST}", "b"), f"a{LOST}b"),
        ((f"a{SECOND}", "b"), f"a{LOST}b"),
        ((f"a{FIRST}", FIRST, SECOND), f"a{LOST}{EMOJI}"),
        ((f"{SECOND}{FIRST}", SECOND), f"{LOST}{EMOJI}"),
    ],
)
def test_a_half_that_belongs_to_none_is_replaced_and_the_answer_is_not_whole(texts: tuple[str, ...], told: str) -> None:
    assert joined(*(chunk({"content": text}) for text in texts)) == (told, False)


def test_a_half_waits_through_events_that_say_nothing_and_is_replaced_at_the_end() -> None:
    assert joined(chunk({"content": FIRST}), chunk({}), chunk({"content": None}), chunk({"content": SECOND})) == (
        EMOJI,
        True,
    )
    assert joined(chunk({"content": f"a{FIRST}"}), chunk({}, "stop")) == (f"a{LOST}", False)


def test_halves_of_other_choices_fields_and_calls_are_apart() -> None:
    halves = Halves()
    first, second = chunk({"content": FIRST}), chunk({"content": SECOND}, index=1)
    assert halves.join(first) and not halves.join(second)
    assert halves.waiting == 1
    assert second["choices"][0]["delta"]["content"] == LOST
    parts = [{"index": n, "function": {"arguments": text}} for n, text in enumerate((FIRST, SECOND))]
    assert not Halves().join(chunk({"tool_calls": parts}))


def test_a_calls_arguments_are_joined_by_its_index() -> None:
    halves, found = Halves(), []
    for text in (f'{{"a":"{FIRST}', f'{SECOND}"}}'):
        part = {"index": 3, "function": {"arguments": text}}
        assert halves.join(chunk({"tool_calls": [part]}))
        found.append(part["function"]["arguments"])
    assert found == ['{"a":"', f'{EMOJI}"}}']


def test_names_and_values_elsewhere_are_made_whole_at_once() -> None:
    found = {"id": f"x{FIRST}", FIRST: [1, None, {"a": f"{FIRST}{SECOND}"}], "choices": None}
    assert Halves().join(found)
    assert found == {"id": f"x{LOST}", LOST: [1, None, {"a": EMOJI}], "choices": None}
