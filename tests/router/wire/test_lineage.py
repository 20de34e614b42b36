"""What a request goes on from is told from what it repeats, however a client writes it on the way."""

from __future__ import annotations

from typing import Any

import pytest

from router.wire.lineage import FRAME_CHARS, MOST_ENDS, Lineage


def said(*texts: str, system: str | None = None) -> list[dict[str, Any]]:
    """User and assistant in turn."""
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *turns] if system is not None else turns


def call(name: str, arguments: Any, id: str = "call_1") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def goes_on(before: list[Any], answer: dict[str, Any], after: list[Any]) -> bool:
    """Whether the second request's last answer ends where the first one's answer did."""
    first, second = Lineage(before), Lineage(after)
    ending = second.ends[0]
    return first.frame == second.frame and first.answered(answer) == (ending.answered, ending.exchange)


def test_a_request_ends_where_its_answer_was_given() -> None:
    assert goes_on(said("a"), {"content": "b"}, said("a", "b", "c"))
    assert goes_on(said("a", "b", "c"), {"content": "d"}, said("a", "b", "c", "d", "e"))
    assert not goes_on(said("a"), {"content": "b"}, said("a", "B", "c"))
    assert not goes_on(said("a"), {"content": "b"}, said("A", "b", "c"))
    assert Lineage(said("a", "b", "c")).ends[0].asked == Lineage(said("a")).asked


@pytest.mark.parametrize(
    ("given", "sent_back"),
    [
        ({"content": "two\n\nlines "}, {"content": "two lines"}),
        ({"content": "<think>hm</think>\n\nyes"}, {"content": "yes"}),
        ({"content": "yes", "reasoning_content": "hm", "refusal": None}, {"content": "yes"}),
        ({"content": "yes"}, {"content": [{"type": "text", "text": "yes", "annotations": []}]}),
        ({"content": None, "tool_calls": [call("f", '{"b": 1, "a": "é"}')]},
         {"tool_calls": [call("f", '{"a":"\\u00e9","b":1}', "call_2") | {"index": 0}]}),
        ({"content": "", "tool_calls": [call("f", "")]}, {"content": None, "tool_calls": [call("f", {})]}),
        ({"content": None, "tool_calls": [call("f", "{no json ")]}, {"tool_calls": [call("f", "{nojson")]}),
    ],
)  # fmt: skip
def test_what_clients_change_of_an_answer_tells_nothing(given: dict[str, Any], sent_back: dict[str, Any]) -> None:
    asked = said("a")
    assert goes_on(asked, given, [*asked, {"role": "assistant", **sent_back}, {"role": "user", "content": "c"}])


@pytest.mark.parametrize("other", ["f2", '{"a": 2}'])
def test_another_call_is_another_answer(other: str) -> None:
    name, arguments = (other, "{}") if other == "f2" else ("f", other)
    after = [*said("a"), {"role": "assistant", "tool_calls": [call(name, arguments)]}, {"role": "user", "content": "c"}]
    assert not goes_on(said("a"), {"tool_calls": [call("f", "{}")]}, after)


def test_images_results_of_tools_and_instructions_in_the_middle_may_go() -> None:
    picture = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:x"}}]
    calling = {"role": "assistant", "tool_calls": [call("f", "{}")]}
    full = [
        {"role": "user", "content": picture},
        calling,
        {"role": "tool", "tool_call_id": "call_1", "content": "long"},
    ]
    bare = [{"role": "user", "content": "look "}, calling, {"role": "tool", "content": "[elided]"},
            {"role": "system", "content": "be quick"}]  # fmt: skip
    answer = {"role": "assistant", "content": "done"}
    assert goes_on(full, answer, [*bare, answer, {"role": "user", "content": "more"}])


def test_two_turns_of_one_side_may_be_joined() -> None:
    apart = [*said("a"), {"role": "user", "content": "b"}]
    assert Lineage(apart).asked == Lineage(said("ab")).asked


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Now: 2026-11-27 09:59", "Now: 2026-11-27 10:00"),
        ("You help. It is 11:59 AM. Session 3f2a-99.", "You help. It is 12:00 PM. Session 771c-04b."),
        (
            "x" * FRAME_CHARS + "It is 9:59. " + "y" * FRAME_CHARS,
            "x" * FRAME_CHARS + "It is 10:00. " + "y" * FRAME_CHARS,
        ),
        ("It is 9:59. " + "tell " * FRAME_CHARS, "It is 10:00. " + "tell " * FRAME_CHARS),
    ],
)
def test_a_clock_in_the_instructions_changes_nothing(one: str, other: str) -> None:
    assert Lineage(said("a", system=one)).frame == Lineage(said("a", system=other)).frame


def test_other_instructions_are_others() -> None:
    frames = {Lineage(said("a", system=text)).frame for text in ("You sell shoes.", "You sell hats.", "")}
    assert len(frames | {Lineage(said("a")).frame}) == 3, "none, and none worth a word, are the same"


def test_a_longer_history_has_no_more_endings() -> None:
    lineage = Lineage(said(*(str(n) for n in range(201))))
    assert len(lineage.ends) == MOST_ENDS
    assert lineage.ends[0].asked == Lineage(said(*(str(n) for n in range(199)))).asked


def test_words_put_into_the_models_mouth_are_no_ending_to_go_on_from() -> None:
    begun = Lineage(said("a", "{"))
    assert not begun.ends[0].followed
    assert begun.answered({"content": '"x": 1}'})[0] == Lineage(said("a", '{"x": 1}', "c")).ends[0].answered


@pytest.mark.parametrize(
    "odd",
    [
        {"role": "user"}, {"role": "user", "content": 7}, {"role": "assistant", "content": None, "tool_calls": "no"},
        {"role": "assistant", "tool_calls": [7, {"function": 7}, {"custom": {"name": None, "input": "x"}}]},
        {"role": "assistant", "function_call": {"name": "f", "arguments": ["a"]}},
        {"role": "\ud800", "content": "\ud800"},
        {"role": "assistant", "tool_calls": [call("f", 2**80)]}, {"role": "user", "content": [None, {"text": None}]},
    ],
)  # fmt: skip
def test_odd_turns_are_read_too(odd: dict[str, Any]) -> None:
    assert Lineage([odd, odd]).answered(odd) == Lineage([odd, odd]).answered(odd)
