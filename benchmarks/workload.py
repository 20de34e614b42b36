"""A small company's day of requests, written for the demo: two routine tasks and one beyond a 135M student.

Every prompt is composed from parts by a seeded generator that knows the right answer, so a simulated
teacher can be right every time and every answer can be marked. No recorded traffic is used.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

TRIAGE = 'Route the support message to a team. Answer with JSON: {"team": "..."}.'
EXTRACT = 'Extract the fields from the note. Answer with JSON: {"name": "...", "item": "...", "due": "..."}.'
REASON = "Solve the problem. Answer with the number only."

TEAMS = {
    "billing": [
        "I was charged twice for {month}",
        "the invoice for {month} shows the wrong amount",
        "please refund the last payment",
        "my card was declined when paying the invoice",
        "why did the price of my plan go up in {month}?",
        "I need a receipt for {month} with our VAT number",
    ],
    "access": [
        "I cannot log in since {day}",
        "the password reset mail never arrives",
        "my account is locked after too many attempts",
        "please remove {name} from our workspace, she left",
        "the two-factor code is always rejected",
        "how do I change the mail address I sign in with?",
    ],
    "delivery": [
        "the parcel with the {item} has not arrived",
        "tracking has not moved since {day}",
        "the courier left the {item} at the wrong address",
        "can the {item} come on {day} instead?",
        "half of the delivery is missing",
        "the box was open and the {item} is damaged",
    ],
    "technical": [
        "the app crashes when I open a report",
        "exporting to a spreadsheet gives an empty file",
        "the dashboard has been very slow since {day}",
        "sync stops at 40 percent every time",
        "I get error {number} when I save",
        "the search no longer finds the {item}",
    ],
    "sales": [
        "we would like an offer for {number} seats",
        "is there a discount for schools?",
        "can {name} show us the product on {day}?",
        "what does the larger plan include?",
        "we want to move from monthly to yearly for {number} people",
        "do you sell the {item} in larger quantities?",
    ],
}
OPENINGS = ["", "Hello, ", "Hi there, ", "Good morning, ", "Dear team, ", "Sorry to bother you, ", "Hey, ", "Urgent: "]
CLOSINGS = ["", " Thanks.", " Please help.", " Best, {name}", " This is the second time.", " Can you look into it?"]
NAMES = ["Amara", "Bruno", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hana", "Ines", "Jonas", "Keiko", "Luca"]
SURNAMES = [
    "Okafor",
    "Silva",
    "Rossi",
    "Ivanov",
    "Demir",
    "Haddad",
    "Lindt",
    "Sato",
    "Moreau",
    "Weber",
    "Novak",
    "Byrne",
]
ITEMS = ["printer", "desk lamp", "contract", "monitor", "office chair", "keyboard", "travel report", "projector"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October"]
NOTES = [
    "{name} {surname} needs the {item} by {day}.",
    "Reminder: {item} for {name} {surname}, due {day}.",
    "By {day} please get the {item} to {name} {surname}.",
    "Spoke with {name} {surname}; promised the {item} for {day}.",
    "{day}: hand over the {item} ({name} {surname}).",
    "The {item} has to be with {name} {surname} on {day} at the latest.",
]


@dataclass(frozen=True)
class Task:
    """One request and its only right answer; ``kind`` is triage, extract or reason."""

    kind: str
    system: str
    prompt: str
    answer: str


def tasks(count: int, seed: int) -> list[Task]:
    """``count`` different tasks: about 50% triage, 35% extraction, 15% reasoning. The same for the same seed."""
    made: dict[str, Task] = {}
    for task in _endless(random.Random(seed)):
        made.setdefault(task.prompt, task)
        if len(made) == count:
            break
    return list(made.values())


def _endless(rng: random.Random) -> Iterator[Task]:
    makers = (_triage, _extract, _reason)
    while True:
        yield rng.choices(makers, weights=(50, 35, 15))[0](rng)


def _parts(rng: random.Random) -> dict[str, object]:
    return {
        "name": rng.choice(NAMES),
        "surname": rng.choice(SURNAMES),
        "item": rng.choice(ITEMS),
        "day": rng.choice(DAYS),
        "month": rng.choice(MONTHS),
        "number": rng.randint(12, 980),
    }


def _triage(rng: random.Random) -> Task:
    team = rng.choice(list(TEAMS))
    text = rng.choice(OPENINGS) + rng.choice(TEAMS[team]) + "." + rng.choice(CLOSINGS)
    text = text.replace("?.", "?").format(**_parts(rng))
    return Task("triage", TRIAGE, text[0].upper() + text[1:], json.dumps({"team": team}))


def _extract(rng: random.Random) -> Task:
    parts = _parts(rng)
    answer = {"name": f"{parts['name']} {parts['surname']}", "item": parts["item"], "due": parts["day"]}
    return Task("extract", EXTRACT, rng.choice(NOTES).format(**parts), json.dumps(answer))


def _reason(rng: random.Random) -> Task:
    boxes, each, broken, price = (rng.randint(*r) for r in ((12, 48), (6, 36), (5, 60), (3, 19)))
    prompt = (
        f"A shop gets {boxes} boxes with {each} cups each. {broken} cups are broken and thrown away. "
        f"The rest is sold for {price} dollars a cup. How many dollars does the shop take?"
    )
    return Task("reason", REASON, prompt, str((boxes * each - broken) * price))
