from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from router.errors import BundleError
from router.heads.files import NUMBERS, load, save
from router.heads.fit import KindFit, fit_heads
from router.heads.heads import LabelHeads

TEAMS = {"card": "billing", "refund": "billing", "password": "access", "parcel": "delivery"}
WORDS = [f"word{n}" for n in range(40)]
ROUTE, STORY = "Route the ticket to a team.", "Tell a story about the words."


def asked(system: str, said: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": system}, {"role": "user", "content": said}], **more}


def log(count: int, seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Tickets with their team, and as many stories, which are never the same."""
    draw = random.Random(seed)
    bodies, messages = [], []
    for n in range(count):
        thing, team = draw.choice(list(TEAMS.items()))
        said = " ".join(draw.sample([*draw.choices(WORDS, k=5), thing], 6))
        closed = n % 2 == 0
        bodies.append(asked(ROUTE if closed else STORY, said))
        messages.append({"role": "assistant", "content": f"{team}\n" if closed else f"{said} and {draw.random()}"})
    return bodies, messages


def fitted(count: int = 400) -> tuple[LabelHeads, list[KindFit]]:
    return fit_heads(*log(count), None)


def test_kinds_with_closed_answers_get_a_head_and_others_say_why_not() -> None:
    heads, kinds = fitted()
    assert {kind.name: kind.why for kind in kinds} == {ROUTE: "", STORY: "open answers"}
    route = next(kind for kind in kinds if not kind.why)
    assert (route.requests, route.distinct, route.unseen) == (200, 3, 0.0)
    fresh = [(b, m) for b, m in zip(*log(200, 1), strict=True) if b["messages"][0]["content"] == ROUTE]
    replies = [heads.reply(body) for body, _ in fresh]
    right = [reply is not None and reply.message == message for reply, (_, message) in zip(replies, fresh, strict=True)]
    assert np.mean(right) > 0.95, "word for word, the newline too"
    assert all(reply is not None and 0 <= reply.score <= 1 for reply in replies)


@pytest.mark.parametrize(
    "body",
    [
        asked(STORY, "card"), asked("Something else.", "card"), asked(ROUTE, "card", metadata={"task": "other"}),
        asked(ROUTE, "card", tools=[{"type": "function", "function": {"name": "look"}}]),
        asked(ROUTE, "card", response_format={"type": "json_object"}), {"messages": []}, {},
        {"messages": [{"role": "user", "content": "card"}]},
        {"messages": [*asked(ROUTE, "card")["messages"], {"role": "assistant", "content": "billing"},
                      {"role": "user", "content": "card"}]},
        asked(ROUTE, "card", tools=["odd", {"function": 3}], response_format=[1]),
    ],
)  # fmt: skip
def test_what_is_of_another_kind_gets_no_answer(body: dict[str, Any]) -> None:
    assert fitted()[0].reply(body) is None


def test_too_few_answers_are_no_kind_to_learn() -> None:
    heads, kinds = fitted(60)
    assert not heads.heads
    assert {kind.why for kind in kinds} == {"fewer than 40 answers"}


def test_what_is_saved_answers_as_before(tmp_path: Path) -> None:
    heads, _ = fitted()
    save(heads, tmp_path)
    again = load(tmp_path, lambda kind: None)
    for body in log(100, 2)[0]:
        assert again.reply(body) == heads.reply(body)


def damage(folder: Path, how: str) -> None:
    numbers, arrays = folder / NUMBERS, folder / "heads.safetensors"
    match how:
        case "no numbers":
            numbers.unlink()
        case "no weights":
            arrays.unlink()
        case "half of the numbers":
            numbers.write_bytes(numbers.read_bytes()[:200])
        case "half of the weights":
            arrays.write_bytes(arrays.read_bytes()[:1000])
        case "other features":
            numbers.write_text(numbers.read_text().replace('"features_version": "', '"features_version": "0'))
        case "an encoder that nobody knows":
            numbers.write_text(numbers.read_text().replace('"encoder": null', '"encoder": "other"'))
        case "a value too few":
            numbers.write_text(numbers.read_text().replace('"billing",', "", 1))
        case "a shape":
            found = load_file(arrays)
            save_file({**found, "0.mean": found["0.mean"][1:].copy()}, arrays)
        case "a layer":
            found = load_file(arrays)
            save_file({name: found[name] for name in found if name != "0.layer.0"}, arrays)


@pytest.mark.parametrize(
    "how",
    ["no numbers", "no weights", "half of the numbers", "half of the weights", "other features",
     "an encoder that nobody knows", "a value too few", "a shape", "a layer"],
)  # fmt: skip
def test_damaged_heads_are_refused(tmp_path: Path, how: str) -> None:
    save(fitted()[0], tmp_path)
    damage(tmp_path, how)
    with pytest.raises(BundleError, match="heads in"):
        load(tmp_path, lambda kind: None)
