"""A conversation may change tiers in every turn, and no provider refuses what another one wrote."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai import OpenAI

from router.app import create_app
from router.backends.base import Backend
from router.backends.history import normalised, own_call_ids
from router.contracts.decision import Tier
from router.settings import Settings
from tests.fakes import FakeUpstream, Script, policy_of, served, until

Messages = list[dict[str, Any]]


def backend(label: str, url: str | None = "http://127.0.0.1:9/v1", tier: Tier = Tier.TEACHER) -> Backend:
    return Backend(tier=tier, label=label, model=label, url=url, timeout_seconds=1)


STUDENT = backend("tiny", tier=Tier.STUDENT)
OPENAI = backend("openai/gpt-5", "https://api.openai.com/v1")
MISTRAL = backend("mistral/mistral-large-latest", None)
CLAUDE = backend("anthropic/claude-opus-4-5", None)
DEEPSEEK = backend("deepseek-reasoner", "https://api.deepseek.com/v1")
KIMI = backend("kimi-k2.6", "https://api.moonshot.ai/v1")
GEMINI = backend("gemini-3-pro", "https://generativelanguage.googleapis.com/v1beta/openai")
VLLM = backend("big")

USER = {"role": "user", "content": "What is the weather?", "a_field_of_tomorrow": 1}


def call(id: Any, city: str = "Bern", **more: Any) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "weather", "arguments": f'{{"city":"{city}"}}'}, **more}


def result(id: Any, text: str = "sunny") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": text}


# What each provider writes, in its own form; each is given the number of the turn.


def by_openai(turn: int, calls: int) -> dict[str, Any]:
    rest = {"refusal": None, "annotations": [], "audio": None, "function_call": None}
    if not calls:
        return {"role": "assistant", "content": f"openai {turn}", "tool_calls": None, **rest}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [call(f"call_{turn}{n:023}") for n in range(calls)],
        **rest,
    }


def refused_by_openai(turn: int, calls: int) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "refusal": f"I cannot {turn}", "annotations": []}


def by_claude(turn: int, calls: int) -> dict[str, Any]:
    thought = {"type": "thinking", "thinking": "hm", "signature": "sig=="}
    said = {"role": "assistant", "content": "" if calls else f"claude {turn}", "reasoning_content": "hm"}
    said |= {"thinking_blocks": [thought], "provider_specific_fields": {"citations": None}}
    return said | ({"tool_calls": [call(f"toolu_{turn}{n:020}", index=n) for n in range(calls)]} if calls else {})


def by_deepseek(turn: int, calls: int) -> dict[str, Any]:
    said = {"role": "assistant", "content": "" if calls else f"deepseek {turn}", "reasoning_content": f"hm {turn}"}
    return said | ({"tool_calls": [call(f"call_0{n}_{turn}abc", index=n) for n in range(calls)]} if calls else {})


def by_kimi(turn: int, calls: int) -> dict[str, Any]:
    said = {"role": "assistant", "content": "" if calls else f"kimi {turn}", "reasoning_content": f"hm {turn}"}
    return said | ({"tool_calls": [call(f"functions.weather:{turn * 9 + n}") for n in range(calls)]} if calls else {})


def by_gemini(turn: int, calls: int) -> dict[str, Any]:
    if not calls:
        return {"role": "assistant", "content": f"gemini {turn}"}
    signed = {"extra_content": {"google": {"thought_signature": f"sig{turn}"}}}
    made = [call(f"function-call-{turn}{n:030}", **(signed if n == 0 else {})) for n in range(calls)]
    return {"role": "assistant", "content": "", "tool_calls": made}


def by_student(turn: int, calls: int) -> dict[str, Any]:
    """As a client of the proxy gets it: a server that counts its calls from 0 in every answer."""
    said = {"role": "assistant", "content": None if calls else f"student {turn}", "reasoning_content": "let me see"}
    said |= {"reasoning": None, "refusal": None, "function_call": None, "tool_calls": []}
    said |= {"tool_calls": [call(f"call_{n}", index=n) for n in range(calls)]} if calls else {}
    answer = {"id": f"chatcmpl-{turn}", "choices": [{"index": 0, "message": said}]}
    own_call_ids(answer)
    return said


# What each provider takes.

BASE = {"role", "content", "name", "tool_calls", "function_call"}
REASONING = {"reasoning_content", "thinking_blocks", "provider_specific_fields", "reasoning_details"}


def checked(messages: Messages, fields: set[str], id_form: str, call_fields: set[str], *, unique: bool = True) -> None:
    """What all have in common: known fields, ids in form, every result after its own call."""
    seen: set[str] = set()
    waiting: set[str] = set()
    for message in messages:
        if message["role"] == "assistant":
            assert message.keys() <= fields, message.keys() - fields
            assert not waiting, "calls without results"
            assert message.get("tool_calls", "none") not in (None, []), "tool_calls is there without calls"
            given = message.get("tool_calls") or []
            assert isinstance(message.get("content"), str) or given or message.get("refusal"), "no content"
            waiting = {c["id"] for c in given}
            assert len(waiting) == len(given), "one id twice in a turn"
            assert all(re.fullmatch(id_form, i) for i in waiting), waiting
            assert not unique or not waiting & seen, "one id in two turns"
            assert all(c.keys() <= call_fields for c in given), given
            seen |= waiting
        elif message["role"] == "tool":
            assert message["tool_call_id"] in waiting, "a result of no call"
            waiting.remove(message["tool_call_id"])


CALL = {"id", "type", "function"}


def takes_openai(messages: Messages) -> None:
    checked(messages, BASE | {"refusal", "audio"}, r".{1,40}", CALL, unique=False)


def takes_mistral(messages: Messages) -> None:
    checked(messages, BASE - {"name", "function_call"}, r"[A-Za-z0-9]{9}", CALL)


def takes_claude(messages: Messages) -> None:
    checked(messages, BASE | REASONING, r"[A-Za-z0-9_-]+", CALL | {"index", "extra_content"})
    own = [m for m in messages if m.get("tool_calls") and m["tool_calls"][0]["id"].startswith("lcm")]
    assert not any("reasoning_content" in m for m in own), "unsigned thoughts"


def takes_deepseek(messages: Messages) -> None:
    checked(messages, BASE | REASONING, r"\S{1,64}", CALL | {"index", "extra_content"})
    own = [m for m in messages if m.get("tool_calls") and m["tool_calls"][0]["id"].startswith(("lcm", "call_0"))]
    assert all(m.get("reasoning_content") for m in own), "thinking, but a call without reasoning"


def takes_kimi(messages: Messages) -> None:
    checked(messages, BASE | REASONING, r"\S+", CALL | {"index", "extra_content"})
    made = [m for m in messages if m.get("tool_calls")]
    own = [m for m in made if m["tool_calls"][0]["id"].startswith(("lcm", "functions."))]
    assert all(m.get("reasoning_content") for m in own), "thinking, but a call without reasoning"


def takes_gemini(messages: Messages) -> None:
    checked(messages, BASE | REASONING - {"reasoning_content"}, r"\S+", CALL | {"index", "extra_content"})
    first = [m["tool_calls"][0] for m in messages if m.get("tool_calls")]
    assert all("thought_signature" in str(c.get("extra_content")) for c in first), "a call without a signature"


def takes_student(messages: Messages) -> None:
    """A server of open models whose template knows three roles, strings, and Mistral's ids."""
    checked(messages, BASE | {"audio"}, r"[A-Za-z0-9]{9}", CALL)
    for message in messages:
        assert message["role"] in ("system", "user", "assistant", "tool")
        assert message["role"] != "assistant" or isinstance(message.get("content"), str | None)


Writes = Callable[[int, int], dict[str, Any]]
Takes = Callable[[Messages], None]
PROVIDERS: dict[str, tuple[Backend, Writes, Takes]] = {
    "openai": (OPENAI, by_openai, takes_openai),
    "mistral": (MISTRAL, by_openai, takes_mistral),
    "claude": (CLAUDE, by_claude, takes_claude),
    "deepseek": (DEEPSEEK, by_deepseek, takes_deepseek),
    "kimi": (KIMI, by_kimi, takes_kimi),
    "gemini": (GEMINI, by_gemini, takes_gemini),
    "openai that refuses": (OPENAI, refused_by_openai, takes_openai),
}


def spoken(writers: list[Writes], calls: int) -> Messages:
    """A conversation: in each turn one of them answers, after ``calls`` calls whose results it reads."""
    messages: Messages = [{"role": "developer", "content": "Be brief."}]
    for turn, write in enumerate(writers):
        messages.append(USER)
        if calls and (asked := write(turn, calls)).get("tool_calls"):
            messages += [asked, *(result(c["id"], f"{turn}.{n}") for n, c in enumerate(asked["tool_calls"]))]
        messages.append(write(turn + 50, 0))
    return messages


@pytest.mark.parametrize("calls", [0, 1, 3])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_switch_between_turns_never_earns_a_400(provider: str, calls: int) -> None:
    """Every way in which four turns can be shared by the student and one teacher, before either answers next."""
    teacher, write, takes = PROVIDERS[provider]
    for writers in product((write, by_student), repeat=4):
        told = spoken(list(writers), calls)
        before = copy.deepcopy(told)
        takes(list(normalised(told, teacher)))
        takes_student(list(normalised(told, STUDENT)))
        assert told == before, "the client's own messages were changed"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_as_it_came_no_provider_would_take_it(provider: str) -> None:
    """The rules above bite: without normalising, the same conversations are refused on both sides."""
    _, write, takes = PROVIDERS[provider]
    told = spoken([write, by_student] * 2, 2)
    for rules in (takes, takes_student):
        with pytest.raises(AssertionError):
            rules(told)


@pytest.mark.parametrize("provider", ["openai", "mistral", "claude"])
@pytest.mark.parametrize("other", ["openai", "claude", "kimi", "gemini", "deepseek"])
def test_a_teacher_that_stands_in_for_another_takes_its_turns_too(provider: str, other: str) -> None:
    teacher, _, takes = PROVIDERS[provider]
    takes(list(normalised(spoken([PROVIDERS[other][1], by_student] * 2, 2), teacher)))


@pytest.mark.parametrize("provider", ["claude", "deepseek", "kimi", "gemini"])
def test_a_reasoning_teacher_gets_its_own_turns_with_tools_back_word_for_word(provider: str) -> None:
    teacher, write, _ = PROVIDERS[provider]
    told = spoken([write, by_student, write], 2)
    got = normalised(told, teacher)
    made = [i for i, m in enumerate(told) if m.get("tool_calls") and not m["tool_calls"][0]["id"].startswith("lcm")]
    assert len(made) == 2
    assert all(got[i] is told[i] or got[i] == told[i] for i in made)


def test_the_texts_of_a_conversation_are_the_same_for_every_reader() -> None:
    told = spoken([by_openai, by_student, by_claude], 2)
    for reader in (STUDENT, *(teacher for teacher, _, _ in PROVIDERS.values())):
        got = normalised(told, reader)
        assert [m.get("content") or "" for m in got] == [m.get("content") or "" for m in told]
        assert [m for m in got if m["role"] == "user"] == [USER] * 3


def test_what_is_rewritten_stays_so_while_the_conversation_grows() -> None:
    """A prompt cache lives on prefixes that do not change."""
    told = spoken([by_openai, by_student, by_kimi, by_student], 2)
    whole = list(normalised(told, MISTRAL))
    for end in range(1, len(told)):
        assert list(normalised(told[:end], MISTRAL)) == whole[:end]


@pytest.mark.parametrize("reader", [STUDENT, OPENAI, MISTRAL, VLLM])
def test_a_plain_conversation_passes_as_the_object_it_is(reader: Backend) -> None:
    told: Messages = [
        {"role": "system", "content": "x", "cache_control": {"type": "ephemeral"}},
        USER,
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "assistant", "content": "there", "name": "bot"},
    ]
    assert normalised(told, reader) is told


def test_a_teacher_gets_fields_that_its_client_wrote_untouched() -> None:
    told = [USER, {"role": "assistant", "content": "{", "prefix": True, "cache_control": {"type": "ephemeral"}}]
    assert normalised(told, VLLM) is told


def test_results_find_their_calls_where_ids_are_missing_or_the_same() -> None:
    for given in ("", "call_0", None):
        told = [USER, {"role": "assistant", "content": None, "tool_calls": [call(given, "Bern"), call(given, "Rome")]}]
        told += [result(given, "rain"), result(given, "sun"), result("of no call")]
        got = normalised(told, CLAUDE)
        ids = [c["id"] for c in got[1]["tool_calls"]]
        assert len(set(ids)) == 2
        assert [m["tool_call_id"] for m in got[2:]] == [*ids, "of no call"]


def test_a_students_calls_have_the_same_ids_in_every_chunk_and_others_in_every_answer() -> None:
    def chunk(answer: str, id: str | None) -> dict[str, Any]:
        delta = {"tool_calls": [{"index": 0, "id": id, "function": {"arguments": "{"}}]}
        found = {"id": answer, "choices": [{"index": 0, "delta": delta}]}
        own_call_ids(found)
        return found["choices"][0]["delta"]["tool_calls"][0]  # type: ignore[index]

    first, again, other = chunk("a", "call_0")["id"], chunk("a", "call_0")["id"], chunk("b", "call_0")["id"]
    assert first == again != other
    assert re.fullmatch("lcm[a-z0-9]{6}", first)
    assert chunk("a", None)["id"] is None, "later chunks of a call carry none"


@pytest.mark.parametrize(
    "odd",
    [
        "a string",
        {"role": "assistant"},
        {"role": "assistant", "content": 5, "tool_calls": "x"},
        {"role": "assistant", "content": [1, {"type": "text"}], "tool_calls": [None, {"id": {}}, {"id": 3}]},
        {"role": "tool"},
        {"role": "tool", "tool_call_id": ["x"]},
    ],
)
def test_what_makes_no_sense_is_left_to_the_backend_to_refuse(odd: Any) -> None:
    for reader in (STUDENT, OPENAI, KIMI, VLLM):
        assert len(normalised([USER, odd], reader)) == 2


def test_the_student_reads_parts_as_text_and_none_of_anothers_thoughts() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Bern."}]
    assert normalised([{"role": "assistant", "content": parts}], STUDENT)[0]["content"] == "Bern."
    strange = [{"role": "assistant", "content": [{"type": "hologram"}, {"type": "text", "text": "x"}]}]
    assert normalised(strange, STUDENT) is strange


def test_the_student_does_not_read_again_what_was_thought_within_a_text() -> None:
    turns = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "<think>easy</think>\n4"}]
    assert normalised(turns, STUDENT)[1] == {"role": "assistant", "content": "4"}
    wished = [{"role": "user", "content": "Think in <think> tags."}, turns[1]]
    assert normalised(wished, STUDENT) is wished


@dataclass
class Switched:
    """A real proxy between upstreams that refuse whatever their rules do not take."""

    client: OpenAI
    student: FakeUpstream
    teacher: FakeUpstream

    def ask(self, tier: str, messages: Messages, *, streamed: bool) -> dict[str, Any]:
        """The assistant's message, as a client that keeps all of it sends it back."""
        headers = {"x-locum-tier": tier}
        create = self.client.chat.completions.with_raw_response.create
        raw = create(model="default", messages=messages, extra_headers=headers, stream=streamed)  # type: ignore[call-overload]
        assert raw.headers["x-locum-tier"] == tier
        if not streamed:
            return dict(raw.parse().choices[0].message.model_dump())
        deltas = [c.choices[0].delta.model_dump() for c in raw.parse() if c.choices]
        calls = [c for d in deltas for c in d.get("tool_calls") or []]
        return {"role": "assistant", "content": "".join(d["content"] or "" for d in deltas), "tool_calls": calls}


@pytest.fixture
def switched(tmp_path: Path) -> Iterator[Switched]:
    student, teacher = FakeUpstream("tiny"), FakeUpstream("mistral-large")
    student.answer, teacher.answer = strict(takes_student, by_student_itself), strict(takes_mistral, by_openai)
    with ExitStack() as stack:
        for upstream in (student, teacher):
            upstream.url = stack.enter_context(served(upstream))
        policy = policy_of(student, teacher)
        policy["student"]["unfit_for"] = {"tools": False}
        file = tmp_path / "policy.yaml"
        file.write_text(yaml.safe_dump(policy))
        settings = Settings(home=tmp_path / "home", cache=tmp_path / "cache")
        app = create_app([file], settings, env={"TEACHER_KEY": "k"}, encoders=lambda kind: None)
        url = stack.enter_context(served(app, lifespan="on"))
        client = stack.enter_context(OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0))
        asking = {"model": "default", "messages": [USER], "extra_headers": {"x-locum-tier": "student"}}
        create = client.chat.completions.with_raw_response.create
        until(lambda: create(**asking).headers["x-locum-tier"] == "student")  # type: ignore[arg-type]
        yield Switched(client, student, teacher)


def by_student_itself(turn: int, calls: int) -> dict[str, Any]:
    made = {"tool_calls": [call(f"call_{n}", index=n) for n in range(calls)]} if calls else {}
    return {"role": "assistant", "content": None if calls else "student", "reasoning_content": "let me see", **made}


def strict(takes: Takes, write: Writes) -> Callable[[dict[str, Any]], Script]:
    """Answers a user with two calls and their results with words; 400 for what the rules do not take."""

    def answer(body: dict[str, Any]) -> Script:
        messages = body["messages"]
        try:
            takes(messages)
        except AssertionError as why:
            return Script(status=400, error={"message": str(why), "type": "invalid_request_error"})
        message = write(len(messages), 2 if messages[-1]["role"] == "user" else 0)
        deltas = [{"tool_calls": [c | {"index": n}]} for n, c in enumerate(message.get("tool_calls") or [])]
        named = {"id": f"chatcmpl-{len(messages)}"}
        return Script(message=message, deltas=(*deltas, {"content": message.get("content") or ""}), extra=named)

    return answer


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("first", ["student", "teacher"])
def test_through_the_proxy_every_turn_may_change_tiers(switched: Switched, first: str, *, streamed: bool) -> None:
    """The tier changes between a call and its result too, the hardest place."""
    tiers = ("student", "teacher") if first == "student" else ("teacher", "student")
    messages: Messages = [{"role": "developer", "content": "Be brief."}]
    for n in range(3):
        messages.append(USER)
        asked = switched.ask(tiers[n % 2], messages, streamed=streamed)
        assert len(asked["tool_calls"]) == 2
        messages += [asked, *(result(c["id"]) for c in asked["tool_calls"])]
        messages.append(switched.ask(tiers[(n + 1) % 2], messages, streamed=streamed))
    ids = [c["id"] for m in messages for c in m.get("tool_calls") or []]
    assert len(set(ids)) == 6
    last = switched.student.seen[-1].body["messages"]
    assert [m for m in last if m["role"] == "user"] == [USER] * sum(m["role"] == "user" for m in last)


@pytest.mark.parametrize("to", [OPENAI, MISTRAL, STUDENT])
def test_any_number_of_calls_may_share_an_id(to: Backend) -> None:
    turns = 30_000  # nothing is tried anew for each: by the square of them this would take hours
    given = [
        m
        for _ in range(turns)
        for m in ({"role": "assistant", "content": None, "tool_calls": [call("x")]}, result("x"))
    ]
    shared = [{"role": "assistant", "content": None, "tool_calls": [call("x")] * turns}, *[result("x")] * turns]
    for messages in (given, shared):
        fresh = normalised(messages, to)
        calls = [c["id"] for m in fresh for c in m.get("tool_calls", ())]
        assert len(set(calls)) == turns
        assert [m["tool_call_id"] for m in fresh if m["role"] == "tool"] == calls
