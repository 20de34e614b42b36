"""Shapes of traffic of which it is known who says what: what ``identity.py`` measures on."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

Messages = list[dict[str, Any]]
WORDS = (  # noqa: SIM905
    "amber basil cedar daisy ember fjord grove heron iris jade kelp lotus maple north ocean pearl quartz raven stone "
    "tulip umber violet willow xenon yarrow zinc"
).split()
HELLO = "Hello! How can I help you today?"


@dataclass
class Talk:
    """One conversation of a shape: ``turns`` user turns, to each of which ``answer`` gives the assistant's, and what
    the client makes of the history (``sends``) before turn n. Returned messages are what the proxy sees."""

    rng: random.Random
    clock: Callable[[], float]
    name: str
    history: Messages = field(default_factory=list)
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[bytes, bytes] = field(default_factory=dict)

    turns = 4
    frame = ""

    def said(self) -> tuple[str, str, bytes]:
        """All that tells its last request from others."""
        return type(self).__name__, self.frame, orjson.dumps(self.history)

    def words(self, n: int) -> str:
        return " ".join(self.rng.choice(WORDS) for _ in range(n))

    def says(self, n: int) -> str:
        return f"{self.words(6)}?"

    def sends(self, n: int) -> Messages:
        return self.history

    def answer(self, n: int) -> dict[str, Any]:
        return {"role": "assistant", "content": f"{self.words(12)}."}

    def keeps(self, n: int, answer: dict[str, Any]) -> None:
        self.history = [*self.history, answer]

    def asked(self, n: int) -> Messages:
        self.history = [*self.history, {"role": "user", "content": self.says(n)}]
        return self.sends(n)


class Greeting(Talk):
    """Everybody says hi, and is greeted alike."""

    def says(self, n: int) -> str:
        return "hi" if n == 0 else super().says(n)

    def answer(self, n: int) -> dict[str, Any]:
        return {"role": "assistant", "content": HELLO} if n == 0 else super().answer(n)


class Examples(Talk):
    """A classifier: the same examples as turns before each message, which is a conversation by itself."""

    turns = 1

    def sends(self, n: int) -> Messages:
        shots = (("my invoice is wrong", "billing"), ("where is my parcel?", "shipping"))
        turns = [{"role": r, "content": t} for shot in shots for r, t in zip(("user", "assistant"), shot, strict=True)]
        return [{"role": "system", "content": "Classify."}, *turns, *self.history]

    def answer(self, n: int) -> dict[str, Any]:
        return {"role": "assistant", "content": self.rng.choice(("billing", "shipping", "other"))}


class Clock(Greeting):
    """Instructions that tell the time, to people who all say hi."""

    def sends(self, n: int) -> Messages:
        now = time.strftime("%A, %Y-%m-%d %H:%M:%S", time.gmtime(1.79e9 + self.clock()))
        return [{"role": "system", "content": f"You help. It is {now}. Be brief."}, *self.history]


class Retrieval(Talk):
    """Instructions that hold other documents in each request."""

    def sends(self, n: int) -> Messages:
        return [{"role": "system", "content": f"Answer from these: {self.words(200)}"}, *self.history]


class Window(Talk):
    """A client that sends the last five messages."""

    turns = 8

    def sends(self, n: int) -> Messages:
        return self.history[-5:]


class Agent(Talk):
    """A loop of tools: results are elided once they are old, ids of calls are renamed, arguments written anew."""

    turns = 10

    def asked(self, n: int) -> Messages:
        if n == 0:
            self.history = [{"role": "user", "content": "fix the failing test"}]
        else:
            result = {"role": "tool", "tool_call_id": f"c{n - 1}", "content": self.words(50)}
            self.history = [m | {"content": "[elided]"} if m["role"] == "tool" else m for m in self.history]
            self.history = [*self.history, result]
        return [{"role": "system", "content": "You are an agent."}, *self.history]

    def answer(self, n: int) -> dict[str, Any]:
        call = {"name": "read", "arguments": orjson.dumps({"path": self.words(2), "line": n}).decode()}
        return {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": f"x{n}", "type": "function", "function": call}],
        }

    def keeps(self, n: int, answer: dict[str, Any]) -> None:
        call = answer["tool_calls"][0]["function"]
        written = {"name": call["name"], "arguments": str(orjson.loads(call["arguments"])).replace("'", '"')}
        turn = {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": f"c{n}", "type": "function", "function": written}],
        }
        self.history = [*self.history, turn]


class Edits(Talk):
    """Answers drawn anew, last turns edited, and a branch back to an earlier turn."""

    turns = 8

    def asked(self, n: int) -> Messages:
        if n in (2, 5):
            return self.sends(n)  # the same again: the answer was not kept
        if n == 3:
            self.history = self.history[:-1]
        if n == 6:
            self.history = self.history[:4]
        return super().asked(n)

    def keeps(self, n: int, answer: dict[str, Any]) -> None:
        if n not in (1, 2, 4):
            super().keeps(n, answer)


class Rewriting(Talk):
    """A client that trims white space and throws thoughts away, before instructions that begin and end alike."""

    def sends(self, n: int) -> Messages:
        return [{"role": "system", "content": "You help."}, *self.history]

    def answer(self, n: int) -> dict[str, Any]:
        text = f"<think>{self.words(20)}</think>\n\n{self.words(8)}.\n\n  - {self.words(4)}\n"
        return {"role": "assistant", "content": text, "reasoning_content": self.words(9)}

    def keeps(self, n: int, answer: dict[str, Any]) -> None:
        text = " ".join(answer["content"].split("</think>")[1].split())
        super().keeps(n, {"role": "assistant", "content": [{"type": "text", "text": text}]})


class Leaving(Talk):
    """A client that stops answers in the middle, and goes on from what it has."""

    def keeps(self, n: int, answer: dict[str, Any]) -> None:
        cut = len(answer["content"]) // 2
        super().keeps(n, answer | {"content": answer["content"][:cut]} if n % 2 == 0 else answer)


class Applications(Greeting):
    """Two applications with one key and instructions of their own: all say hi to both."""

    def sends(self, n: int) -> Messages:
        self.frame = ("shoes", "insurance")[int(self.name) % 2]
        return [{"role": "system", "content": f"You are the assistant of a shop for {self.frame}."}, *self.history]


class CacheKey(Greeting):
    """One ``prompt_cache_key`` for the whole application."""

    def sends(self, n: int) -> Messages:
        self.body["prompt_cache_key"] = "app-v1"
        return self.history


class Session(Greeting):
    """Clients that name their session, and put a summary in the place of what was said."""

    def sends(self, n: int) -> Messages:
        self.headers[b"session_id"] = f"s-{self.name}".encode()
        return [{"role": "user", "content": f"In short: {self.words(9)}"}] if n == 2 else self.history


SHAPES: dict[str, tuple[type[Talk], ...]] = {
    "all open with hi": (Greeting,),
    "examples in the prompt": (Examples,),
    "a clock in the instructions": (Clock,),
    "documents in the instructions": (Retrieval,),
    "a sliding window": (Window,),
    "agents with elided results": (Agent,),
    "edits, retries, branches": (Edits,),
    "rewritten answers": (Rewriting,),
    "answers left in the middle": (Leaving,),
    "two applications, one key": (Applications,),
    "one cache key for all": (CacheKey,),
    "named sessions": (Session,),
    "all of them mixed": (
        Greeting, Examples, Clock, Retrieval, Window, Agent, Edits, Rewriting, Leaving, Applications, Session,
    ),
}  # fmt: skip
