"""A student's calls of tools leave only where they are of what was offered, and no part of others ever does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from openai import OpenAI

from tests.fakes import World, until, world

USER: Any = [{"role": "user", "content": "And in Oslo?"}]
CITY = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]
RIGHT = ("weather", '{"city": "Oslo"}')


@pytest.fixture(scope="module", params=[None, False])
def proxy(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[World]:
    """Everything that may go to the student does, and everything is audited; with tools by the policy's word, or
    without any."""
    with world(tmp_path_factory.mktemp("world"), audit={"rate": 1, "warmup_rate": 1, "explore": 0}) as found:
        policy = yaml.safe_load(found.policy_file.read_text())
        policy["student"]["unfit_for"] = {"tools": request.param, "fields": ["seed"]}
        found.policy_file.write_text(yaml.safe_dump(policy))
        until(lambda: ask(found, seed=1)[1]["x-locum-tier"] == "teacher" and ask(found)[1]["x-locum-tier"] == "student")
        found.declared = request.param
        yield found


def ask(proxy: World, **more: Any) -> tuple[Any, Any]:
    with OpenAI(base_url=f"{proxy.url}/v1", api_key="unused", max_retries=0) as client:
        create: Any = client.chat.completions.with_raw_response.create
        seed = {"extra_body": {"seed": more.pop("seed")}} if "seed" in more else {}
        raw = create(model="default", messages=USER, **more, **seed)
        return (list(raw.parse()) if more.get("stream") else raw.parse()), raw.headers


def calls(proxy: World, *made: tuple[str, str], text: str | None = None) -> None:
    """The student calls these, after some words."""
    parts = [
        {
            "tool_calls": [
                {"index": n, "id": f"c{n}", "type": "function", "function": {"name": name, "arguments": given}}
            ]
        }
        for n, (name, given) in enumerate(made)
    ]
    whole = [{k: v for k, v in p["tool_calls"][0].items() if k != "index"} for p in parts]
    words = [{"content": f"{word} "} for word in (text or "").split()]
    message = {"role": "assistant", "content": text, "tool_calls": whole}
    proxy.student.always(message=message, deltas=(*words, *parts), finish_reason="tool_calls")


def said(answer: Any) -> str:
    """All that the client got, whole or in pieces."""
    return answer.model_dump_json() if not isinstance(answer, list) else "".join(c.model_dump_json() for c in answer)


@pytest.mark.parametrize("stream", [False, True])
def test_a_right_call_is_served_where_the_student_may_call(proxy: World, stream: bool) -> None:
    calls(proxy, RIGHT, text="One moment please.")
    answer, headers = ask(proxy, tools=TOOLS, stream=stream)
    if proxy.declared is None:
        assert (headers["x-locum-tier"], headers["x-locum-reason"]) == ("teacher", "capability")
        audit = until(lambda: proxy.record(headers["x-locum-request-id"]).audit)
        assert audit.missed is None and audit.answer.message["tool_calls"], "audits are what proves it"
        assert audit.acceptable is False, "it calls where the teacher does not"
    else:
        assert headers["x-locum-tier"] == "student"
        assert "weather" in said(answer) and "moment" in said(answer)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "made",
    [
        [("wether", '{"city": "Oslo"}')],
        [("weather", '{"city": "Paris"}')],
        [("weather", "{}")],
        [("weather", '{"city": "Os')],
        [RIGHT, ("weather", "[]")],
    ],
)
@pytest.mark.parametrize("text", [None, "This one takes a while, and many a word is said of it before it ends: " * 4])
def test_a_wrong_call_is_answered_by_the_teacher_before_anything_left(
    proxy: World, made: list[tuple[str, str]], text: str | None, stream: bool
) -> None:
    if proxy.declared is None:
        pytest.skip("the student is not asked")
    calls(proxy, *made, text=text)
    answer, headers = ask(proxy, tools=TOOLS, stream=stream)
    assert headers["x-locum-tier"] == "teacher" and "tool_calls" not in said(answer).replace('"tool_calls":null', "")
    assert "takes a while" not in said(answer)
    assert proxy.record(headers["x-locum-request-id"]).deferral == "schema"


def test_words_where_a_call_was_required_are_deferred(proxy: World) -> None:
    if proxy.declared is None:
        pytest.skip("the student is not asked")
    proxy.student.always(text="It is cold.")
    assert ask(proxy, tools=TOOLS)[1]["x-locum-tier"] == "student"
    assert ask(proxy, tools=TOOLS, tool_choice="required")[1]["x-locum-tier"] == "teacher"
    assert ask(proxy, tools=TOOLS, tool_choice="none")[1]["x-locum-tier"] == "student"
