"""Which conversation a request belongs to, by what it says alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from router.routing.conversations import MOST_NAME_CHARS, Identities
from router.routing.state.machine import MachineState
from router.routing.state.trails import BRANCHES

HI = ("hi", "Hello! How can I help?")


class Proxy:
    """Answers requests as a proxy does; ``ask`` tells the conversation's id."""

    def __init__(self) -> None:
        self.identity, self._asked = Identities(MachineState()), 0

    def ask(
        self,
        *said: str,
        answer: str | None = "Hello! How can I help?",
        system: str | None = None,
        owner: str = "",
        user: str = "",
        hint: str = "",
        known: str | None = None,
    ) -> str:
        turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
        messages = [{"role": "system", "content": system}, *turns] if system else turns
        return self.ask_with(messages, None if answer is None else {"content": answer},
                             owner=owner, user=user, hint=hint, known=known)  # fmt: skip

    def ask_with(
        self, messages: list[Any], answer: Mapping[str, Any] | None, *, owner: str = "", user: str = "",
        hint: str = "", known: str | None = None,
    ) -> str:  # fmt: skip
        self._asked += 1
        found = self.identity.of(messages, owner, f"req-{self._asked}", user=user, hint=hint, known=known)
        if answer is not None:
            self.identity.answered(found, answer)
        return found.conversation


@pytest.fixture
def proxy() -> Proxy:
    return Proxy()


def test_people_who_open_alike_are_people_apart(proxy: Proxy) -> None:
    opened = [proxy.ask("hi") for _ in range(60)]
    then = [proxy.ask(*HI, f"question {n}", answer=f"answer {n}") for n in range(60)]
    later = [proxy.ask(*HI, f"question {n}", f"answer {n}", "why?") for n in range(60)]
    assert len(set(opened)) == 60
    assert then == opened, "each opening goes on once, and whoever waited longest goes first"
    assert later == then


def test_a_prompt_with_examples_makes_nobodys_conversation_anothers(proxy: Proxy) -> None:
    shots = ("invoice wrong", "billing", "where is it?", "shipping")
    assert len({proxy.ask(*shots, f"question {n}", answer="other") for n in range(60)}) == 60
    proxy.ask("where is it?", answer="shipping")  # somebody truly asks an example
    assert len({proxy.ask(*shots, f"again {n}", answer="other") for n in range(60)}) == 60


def test_an_example_that_was_answered_here_soon_joins_no_more(proxy: Proxy) -> None:
    proxy.ask("Understood?", answer="Yes")
    found = [proxy.ask("Understood?", "Yes", f"question {n}", answer=f"a{n}") for n in range(100)]
    assert len(set(found)) == 1 + 100 - BRANCHES


def test_a_clock_in_the_instructions_starts_no_conversation_anew(proxy: Proxy) -> None:
    first = proxy.ask("hi", system="Now: 09:59", answer="a")
    assert proxy.ask("hi", "a", "more", system="Now: 10:00", answer="b") == first
    assert proxy.ask("hi", "a", "more", "b", "yet more", system="Now: 10:01") == first


def test_instructions_made_anew_for_each_request_start_none_anew_either(proxy: Proxy) -> None:
    first = proxy.ask("how do I reset it?", system="Documents: amber", answer="Hold the button.")
    second = proxy.ask("how do I reset it?", "Hold the button.", "and then?", system="Documents: zinc", answer="Wait.")
    assert second == first


def test_two_applications_that_are_opened_alike_come_apart(proxy: Proxy) -> None:
    shoes, hats = proxy.ask("hi", system="You sell shoes."), proxy.ask("hi", system="You sell hats.")
    assert shoes != hats
    assert proxy.ask(*HI, "red ones?", system="You sell shoes.") == shoes
    assert proxy.ask(*HI, "red ones?", system="You sell hats.") == hats


def test_a_history_that_is_trimmed_goes_on(proxy: Proxy) -> None:
    said = ["question 0"]
    first = proxy.ask(*said, answer="answer 0")
    for n in range(1, 9):
        said += [f"answer {n - 1}", f"question {n}"]
        assert proxy.ask(*said[-5:], answer=f"answer {n}") == first


def test_the_opening_and_the_end_are_enough(proxy: Proxy) -> None:
    first = proxy.ask("question 0", answer="answer 0")
    assert proxy.ask("question 0", "answer 0", "question 1", answer="answer 1") == first
    assert proxy.ask("question 0", "answer 0", "question 1", "answer 1", "question 2", answer="answer 2") == first
    assert proxy.ask("question 0", "answer 0", "question 2", "answer 2", "question 3") == first


def test_an_answer_drawn_anew_an_edit_and_branches_stay_in_it(proxy: Proxy) -> None:
    first = proxy.ask("a story", answer="Once")
    asked = [proxy.ask("a story", "Once", text, answer=text) for text in ("on", "on", "no, on", "back")]
    assert set(asked) == {first}
    assert {proxy.ask("a story", "Once", text, text, "and?") for text in ("on", "back")} == {first}


def test_a_client_that_left_in_the_middle_goes_on(proxy: Proxy) -> None:
    first = proxy.ask("a long story", answer=None)
    assert proxy.ask("a long story", "Once upon", "shorter, please") == first


def test_an_answer_that_the_client_wrote_anew_goes_on_where_nobody_else_asked_the_same(proxy: Proxy) -> None:
    first = proxy.ask("the sum of 2 and 3", answer="It is **5**.")
    assert proxy.ask("the sum of 2 and 3", "It is 5.", "and 4?") == first
    proxy.ask("hi"), proxy.ask("hi")
    assert proxy.ask("hi", "Servus!", "what?") not in {proxy.ask("hi"), first}


def test_two_keys_two_users_and_two_hints_never_join(proxy: Proxy) -> None:
    ways = [{"owner": "k1"}, {"owner": "k2"}, {"user": "u1"}, {"user": "u2"}, {"hint": "h1"}, {"hint": "h2"}, {}]
    opened = [proxy.ask("the same", answer="words", **way) for way in ways]
    assert len(set(opened)) == len(ways)
    assert [proxy.ask("the same", "words", "more", **way) for way in ways] == opened
    assert opened[0].startswith("k1/")


def test_a_hint_joins_what_its_history_no_longer_shows_while_it_is_one_conversations(proxy: Proxy) -> None:
    first = proxy.ask("question", answer="answer", hint="h")
    assert proxy.ask("what was said, in short", "I see.", "go on", hint="h") == first
    second = proxy.ask("another question", answer="another answer", hint="h")
    assert second != first, "a hint that many conversations share is none's name"
    assert proxy.ask("what else was said", "I see.", "go on", hint="h") not in {first, second}
    assert proxy.ask("another question", "another answer", "more", hint="h") == second


def test_the_same_request_again_is_the_same_conversation_unless_it_begins_as_others_do(proxy: Proxy) -> None:
    said = ("said elsewhere", "indeed", "go on")
    assert proxy.ask(*said, answer=None) == proxy.ask(*said, answer=None)
    proxy.ask("said elsewhere", "indeed", "something else")
    assert proxy.ask(*said, answer=None) != proxy.ask(*said, answer=None)


def test_loops_of_tools_are_one_conversation(proxy: Proxy) -> None:
    messages: list[Any] = [{"role": "user", "content": "mend it"}]
    found = set()
    for n in range(12):
        call = {"id": f"call_{n}", "type": "function", "function": {"name": "read", "arguments": f'{{"n": {n}}}'}}
        found.add(proxy.ask_with(messages, {"content": None, "tool_calls": [call]}))
        result = {"role": "tool", "tool_call_id": f"call_{n}", "content": "x" * 1000}
        elided = [m | {"content": "[elided]"} if m["role"] == "tool" else m for m in messages]
        messages = [*elided, {"role": "assistant", "content": "", "tool_calls": [call]}, result]
    assert len(found) == 1


def test_what_it_is_known_to_go_on_with_counts_and_is_gone_on_with_by_hand(proxy: Proxy) -> None:
    first = proxy.ask("a", answer="b", owner="k")
    assert proxy.ask("x", answer="y", owner="k", known=first) == first
    assert proxy.ask("x", "y", "z", owner="k") == first
    assert proxy.ask("x", owner="k", known="k/named") == "k/named"


def test_a_name_is_its_keys_own_and_a_long_one_is_still_one() -> None:
    identity = Identities(MachineState())
    assert identity.named("k", "x").conversation == "k/x"
    one, other = (identity.named("", "x" * MOST_NAME_CHARS + end).conversation for end in "ab")
    assert one != other and max(len(one), len(other)) <= MOST_NAME_CHARS
