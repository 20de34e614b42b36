"""What a model thought is told apart from what it answered, however the model spells it."""

from __future__ import annotations

import pytest

from router.wire.rationale import parted, thoughts_of, without_thoughts


@pytest.mark.parametrize(
    "content",
    [
        "<think>\nhm\n</think>\n\nIt is 4.",
        "\n<think>hm</think>It is 4.",
        "hm\n</think>\n\nIt is 4.",
        "<thinking>hm</thinking>\nIt is 4.",
        "<thought>\nhm\n</thought>\nIt is 4.",
        "<seed:think>hm</seed:think>It is 4.",
        "[THINK]hm[/THINK]It is 4.",
        "◁think▷hm◁/think▷It is 4.",
        "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>It is 4.<|END_RESPONSE|>",
        "<|begin_of_thought|>\n\nhm\n<|end_of_thought|>\n<|begin_of_solution|>\nIt is 4.\n\n<|end_of_solution|>",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>It is 4.",
        "<think>hm</think>\n<answer>\nIt is 4.\n</answer>",
        "<think></think>\n\n<think>hm</think>It is 4.",
    ],
)
def test_thoughts_are_parted_from_the_answer(content: str) -> None:
    assert parted(content) == ("hm", "It is 4.", False)


@pytest.mark.parametrize(
    "content",
    [
        "It is 4.",
        "  It is 4.\n\n",
        "The tag <think> opens what a model thinks, and </think> closes it.",
        "def f(x):\n    return x  # <answer>",
        "<thin>it is</thin>",
        "",
    ],
)
def test_where_nothing_was_thought_the_answer_is_all_that_was_said(content: str) -> None:
    assert parted(content) == ("", content, False)


def test_one_that_was_cut_off_while_it_thought_answered_nothing() -> None:
    assert parted("<think>first this, then") == ("first this, then", "", False)
    assert parted("<think>") == ("", "", False)


def test_a_mark_that_was_asked_for_belongs_to_the_answer() -> None:
    said = "<thinking>hm</thinking>4"
    assert parted(said, ["Think in <thinking></thinking> first."]) == ("", said, False)
    assert without_thoughts(said, [{"role": "user", "content": [{"type": "text", "text": "use <thinking>"}]}]) == said
    assert without_thoughts(said, [{"role": "assistant", "content": "<thinking>"}]) == "4"


def test_thoughts_within_an_answer_are_told() -> None:
    assert parted("It is 4.\n<think>\nor 5?\n</think>\nIt is 5.").mixed
    assert parted("<think>a</think>It is 4.\n</think>").mixed
    assert parted("<think>a</think>\n" * 100_000).mixed


@pytest.mark.parametrize(
    ("message", "thought"),
    [
        ({"reasoning_content": "hm"}, "hm"),
        ({"reasoning": "hm", "reasoning_content": None}, "hm"),
        ({"thinking": "hm"}, "hm"),
        ({"reasoning": {"effort": "low"}}, ""),
        ({"content": "x"}, ""),
    ],
)
def test_thoughts_told_beside_the_content_are_found(message: dict[str, object], thought: str) -> None:
    assert thoughts_of(message) == thought
