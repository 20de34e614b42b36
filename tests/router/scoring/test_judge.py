from typing import Any

import pytest

from router.errors import LocumError
from router.policy import Policy
from router.scoring.judge import JUDGES, acceptable


def said(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def called(*calls: tuple[str, str]) -> dict[str, Any]:
    tools = [{"id": f"c{i}", "function": {"name": n, "arguments": a}} for i, (n, a) in enumerate(calls)]
    return {"role": "assistant", "content": None, "tool_calls": tools}


@pytest.mark.parametrize(
    ("judge", "student", "teacher", "verdict"),
    [
        ("exact", "Yes", "Yes", True),
        ("exact", "yes", "Yes", False),
        ("normalised", " Card  Arrival.\n", '"card arrival"', True),
        ("normalised", "```\ncard_arrival\n```", "card_arrival", True),
        ("normalised", "**Straße**", "STRASSE", True),
        ("normalised", "card_arrival", "card_linking", False),
        ("normalised", "not ok", "ok", False),
        ("normalised", "", "", False),
        ("json", '```json\n{"b": [1, 2.0], "a": null}\n```', '{"a": null, "b": [1.0, 2]}', True),
        ("json", '{"a": [2, 1]}', '{"a": [1, 2]}', False),
        ("json", '{"a": true}', '{"a": 1}', False),
        ("json", '{"a": 1, "b": 2}', '{"a": 1}', False),
        ("json", '{"a": 1', '{"a": 1}', False),
        ("json", "no json", "no json", False),
        ("numeric", "So it is $1,234.50.", "#### 1234.5", True),
        ("numeric", "x = -3", "3", False),
        ("numeric", "10-3", "3", True),
        ("numeric", "2 and then 4", "the answer is 4", True),
        ("numeric", "none", "none", False),
    ],
)
def test_verdicts(judge: str, student: str, teacher: str, verdict: bool) -> None:
    assert acceptable(judge, said(student), said(teacher)) is verdict


def test_text_in_parts_is_joined() -> None:
    assert acceptable("exact", said([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), said("ab"))


def test_tool_calls_are_compared_by_name_and_arguments() -> None:
    teacher = called(("find", '{"a": 1, "b": 2}'), ("book", "{}"))
    assert acceptable("exact", called(("book", "{}"), ("find", '{"b":2,"a":1}')), teacher)
    assert not acceptable("normalised", called(("find", '{"a": 1, "b": 3}'), ("book", "{}")), teacher)
    assert not acceptable("normalised", said("I'd call find"), teacher)
    assert not acceptable("normalised", called(("find", "{}")), said("hello"))
    assert acceptable("json", called(("f", "not json")), called(("f", "not json")))


def test_every_judge_that_a_policy_may_name_is_there() -> None:
    names = Policy.model_fields["judge"].annotation
    assert set(JUDGES) == set(names.__args__)  # type: ignore[union-attr]
    with pytest.raises(LocumError, match="no judge 'kind'"):
        acceptable("kind", said("a"), said("a"))
