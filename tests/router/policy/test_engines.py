"""Requests that ask for what the student's server would drop, through the whole proxy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from openai import OpenAI

from router.policy.engines import ENGINES, IDLE, asks
from tests.fakes import World, until, world

USER: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everything goes to the student, everything is audited; its server does nothing with ``seed``, and
    need do nothing with ``reasoning_effort``."""
    with world(tmp_path_factory.mktemp("world"), audit={"rate": 1, "warmup_rate": 1, "explore": 0}) as found:
        policy = yaml.safe_load(found.policy_file.read_text())
        policy["student"] |= {"unfit_for": {"fields": ["seed"]}, "may_ignore": ["reasoning_effort"]}
        found.policy_file.write_text(yaml.safe_dump(policy))
        until(lambda: ask(found, seed=1)["x-locum-tier"] == "teacher" and ask(found)["x-locum-tier"] == "student")
        yield found


def ask(proxy: World, model: str = "default", **fields: Any) -> Any:
    with OpenAI(base_url=f"{proxy.url}/v1", api_key="unused", max_retries=0) as client:
        create = client.chat.completions.with_raw_response.create
        return create(model=model, messages=USER, extra_body=fields).headers


def test_a_field_that_the_student_would_drop_reaches_the_teacher_instead(proxy: World) -> None:
    headers = ask(proxy, seed=7, a_field_of_tomorrow={"x": 1})
    assert (headers["x-locum-tier"], headers["x-locum-reason"]) == ("teacher", "capability")
    assert {"seed": 7, "a_field_of_tomorrow": {"x": 1}}.items() <= proxy.teacher.seen[-1].body.items()
    assert proxy.record(headers["x-locum-request-id"]).decision.detail == "seed"


def test_a_request_that_the_student_is_unfit_for_is_not_audited_with_it(proxy: World) -> None:
    before = len(proxy.student.seen)
    id = ask(proxy, seed=8)["x-locum-request-id"]
    audit = until(lambda: proxy.record(id).audit)
    assert audit.missed == "capability"
    assert all(seen.body.get("seed") != 8 for seen in proxy.student.seen[before:])


def test_what_the_student_may_ignore_is_left_out_for_it_and_for_it_alone(proxy: World) -> None:
    def asked(tier: str) -> dict[str, Any]:
        headers = ask(proxy, f"locum/{tier}", reasoning_effort="high", user=f"of the {tier}", top_k=5)
        assert headers["x-locum-tier"] == tier
        upstream = proxy.student if tier == "student" else proxy.teacher
        return next(seen.body for seen in upstream.seen if seen.body.get("user") == f"of the {tier}")

    assert "reasoning_effort" not in asked("student")
    assert asked("student")["top_k"] == 5, "a server by URL gets whatever else it is asked"
    assert asked("teacher")["reasoning_effort"] == "high"


def test_defaults_are_those_of_fields_that_say_something() -> None:
    assert not any(asks(field, value) for field, values in IDLE.items() for value in values)
    assert all(asks("a_field", value) for value in (False, 0, "x", [0], {"x": None}))
    assert all({"messages", "stream"} <= known.heeds for known in ENGINES.values() if known.heeds is not None)
