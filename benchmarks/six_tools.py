"""A written workload of six tools. Synthetic: nobody asked any of it.

Messages are templates with slots and some words around, drawn with a fixed seed; the truth is written with each. Four
of the tools take arguments from closed sets; a reminder's time is a number, and a note's text is the client's own,
which no closed set has. Some messages call nothing and are answered in a fixed sentence. Phrasings of every kind that
are ``unseen`` stand in no training row: they show what is learnt beyond the templates.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

CITIES = ("Oslo", "Rome", "Lima", "Cairo", "Quito")
ROOMS = ("kitchen", "hall", "office", "garage")
DEVICES = ("lamp", "heater", "fan")
LISTS = ("food", "work", "travel")
COINS = ("EUR", "USD", "NOK", "CHF")
ARTISTS = ("Björk", "Sade", "Miles Davis")
THINGS = (
    "oat milk", "two lemons", "call the plumber", "a new rope", "passport photos", "rye bread", "seed potatoes",
    "print the report", "a bicycle pump", "sun cream", "book the ferry", "paint for the fence", "light bulbs",
    "ask Ada about Monday", "a birthday card", "wool socks", "the blue folder", "coffee filters",
)  # fmt: skip
BEFORE = ("", "", "Hey, ", "Hi! ", "Quick one: ", "Good morning. ", "Me again: ")
AFTER = ("", "", " Thanks!", " Cheers", " It's for Ada.", " No hurry")
WORKS, SUBJECTS = ("Faust", "Hamlet", "Emma", "Ulysses"), ("tea", "chess", "moss", "fog")
NOTHING = "I can only help with weather, the home, lists, money, music and reminders."
Slots = Mapping[str, Any]


def _tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": [*properties]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [
    _tool("weather", city={"enum": [*CITIES]}, day={"enum": ["today", "tomorrow"]}),
    _tool("switch", device={"enum": [*DEVICES]}, room={"enum": [*ROOMS]}, on={"type": "boolean"}),
    _tool("exchange_rate", source={"enum": [*COINS]}, target={"enum": [*COINS]}),
    _tool("play", artist={"enum": [*ARTISTS]}, shuffle={"type": "boolean"}),
    _tool("remind", minutes={"type": "integer"}),
    _tool("note", list={"enum": [*LISTS]}, text={"type": "string"}),
]


@dataclass(frozen=True, slots=True)
class MessageKind:
    """Phrasings of one wish; those ``unseen`` are never learnt from. ``draw`` fills the slots, ``call`` says what is
    right."""

    name: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    draw: Callable[[random.Random], Slots]
    call: Callable[[Slots], tuple[str, Slots] | None]


def _rate(drawn: random.Random) -> Slots:
    source, target = drawn.sample(COINS, 2)
    return {"source": source, "target": target}


KINDS = (
    MessageKind(
        "weather",
        ("What's the weather in {city} {day}?", "Will it rain {day} in {city}?", "{city} {day}: how cold is it?",
         "Do I need a coat in {city} {day}?", "Tell me the forecast for {city} {day}."),
        ("How is the sky over {city} {day}?", "I'm in {city} {day}. Sunglasses or umbrella?"),
        lambda r: {"city": r.choice(CITIES), "day": r.choice(("today", "tomorrow"))},
        lambda s: ("weather", {"city": s["city"], "day": s["day"]}),
    ),
    MessageKind(
        "switch",
        ("Turn {state} the {device} in the {room}.", "{device} in the {room} {state}, please",
         "Switch the {room} {device} {state}.",
         "Could you turn the {room}'s {device} {state}?"),
        ("I want the {device} of the {room} to be {state}.", "Make it so that the {room} {device} is {state}"),
        lambda r: {"device": r.choice(DEVICES), "room": r.choice(ROOMS), "state": r.choice(("on", "off"))},
        lambda s: ("switch", {"device": s["device"], "room": s["room"], "on": s["state"] == "on"}),
    ),
    MessageKind(
        "exchange_rate",
        ("What is one {source} in {target}?", "{source} to {target}", "How many {target} do I get for a {source}?",
         "Rate from {source} to {target}, please."),
        ("If I hand in a {source}, what comes back in {target}?", "Tell me what {target} costs when I pay {source}"),
        _rate,
        lambda s: ("exchange_rate", {"source": s["source"], "target": s["target"]}),
    ),
    MessageKind(
        "play",
        ("Play {artist}{how}.", "Put on some {artist}{how}", "I'd like to hear {artist}{how}.",
         "Start {artist}{how}, please"),
        ("{artist} would be nice now{how}", "Let the room fill with {artist}{how}!"),
        lambda r: {"artist": r.choice(ARTISTS), "how": r.choice(("", " on shuffle"))},
        lambda s: ("play", {"artist": s["artist"], "shuffle": bool(s["how"])}),
    ),
    MessageKind(
        "remind",
        ("Remind me in {minutes} minutes.", "Set a reminder for {minutes} minutes from now.",
         "Ping me after {minutes} minutes", "A reminder in {minutes} min, please."),
        ("When {minutes} minutes are over, tell me.", "Give me a shout {minutes} minutes from here"),
        lambda r: {"minutes": r.randrange(2, 120)},
        lambda s: ("remind", {"minutes": s["minutes"]}),
    ),
    MessageKind(
        "note",
        ("Put {text} on the {list} list.", "Add {text} to {list}", "{list} list: {text}",
         "Please note {text} for {list}."),
        ("The {list} list lacks {text}.", "Don't let me forget {text}, under {list}"),
        lambda r: {"text": r.choice(THINGS) + r.choice(("", " and " + r.choice(THINGS))), "list": r.choice(LISTS)},
        lambda s: ("note", {"list": s["list"], "text": s["text"]}),
    ),
    MessageKind(
        "nothing",
        ("Who wrote {work}?", "Tell me a joke about {thing}.", "What do you think of {thing}?", "Is {thing} healthy?"),
        ("Write a poem on {thing}", "How old is {work}?"),
        lambda r: {"work": r.choice(WORKS), "thing": r.choice(SUBJECTS)},
        lambda s: None,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class WrittenMessage:
    """One message, and the answer that is right."""

    kind: str
    text: str
    call: tuple[str, Slots] | None

    @property
    def answer(self) -> dict[str, Any]:
        """The assistant's message."""
        if self.call is None:
            return {"role": "assistant", "content": NOTHING}
        function = {"name": self.call[0], "arguments": orjson.dumps(self.call[1]).decode()}
        return {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c0", "type": "function", "function": function}],
        }


def written(count: int, seed: int, *, unseen: bool = False) -> list[WrittenMessage]:
    """So many messages, each of a kind drawn evenly; of phrasings that are learnt from, or of those that are not."""
    drawn, found = random.Random(seed), []
    for _ in range(count):
        kind = drawn.choice(KINDS)
        slots, phrasings = kind.draw(drawn), kind.unseen if unseen else kind.seen
        text = drawn.choice(BEFORE) + drawn.choice(phrasings).format_map(slots) + drawn.choice(AFTER)
        found.append(WrittenMessage(kind.name, text[0].upper() + text[1:], kind.call(slots)))
    return found


def apart(messages: Sequence[WrittenMessage], learnt: Sequence[WrittenMessage]) -> list[WrittenMessage]:
    """Those whose text was not learnt from."""
    known = {m.text for m in learnt}
    return [m for m in messages if m.text not in known]
