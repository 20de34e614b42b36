"""What servers get a little wrong all through an answer: each of these says what was meant, if one knows how."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from random import Random

from benchmarks.fuzz.mutation import Value
from benchmarks.scripted import Row

HALF, OTHER_HALF = "\ud83d", "\ude00"


def slipped(rng: Random, answers: Iterable[Value]) -> None:
    """One or two slips through all of an answer's chunks, or through a whole answer (changes ``answers``)."""
    slips = rng.sample(SLIPS, rng.choice((1, 1, 2)))
    for found in answers:
        choices = found.get("choices") if isinstance(found, dict) else None
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                for slip in slips:
                    slip(rng, found, choice)


def _said(choice: Row) -> Row:
    found = choice.get("delta", choice.get("message"))
    return found if isinstance(found, dict) else {}


def _calls(choice: Row) -> list[Row]:
    found = _said(choice).get("tool_calls")
    return [call for call in found if isinstance(call, dict)] if isinstance(found, list) else []


def _of_calls(change: Callable[[Random, Row], None]) -> Callable[[Random, Row, Row], None]:
    def slip(rng: Random, answer: Row, choice: Row) -> None:
        for call in _calls(choice):
            call["function"] = dict(call["function"])  # shared with other answers
            change(rng, call)

    return slip


def _arguments(rng: Random, call: Row) -> None:
    written = call["function"].get("arguments")
    try:
        whole = json.loads(written) if isinstance(written, str) and written else rng.choice((None, ""))
        call["function"]["arguments"] = whole
    except ValueError:
        del call["function"]["arguments"]


def _as_function(rng: Random, answer: Row, choice: Row) -> None:
    if calls := _calls(choice):
        said = _said(choice)
        del said["tool_calls"]
        said["function_call"] = calls[0]["function"]
    if choice.get("finish_reason") == "tool_calls":
        choice["finish_reason"] = "function_call"


def _as_parts(rng: Random, answer: Row, choice: Row) -> None:
    said = _said(choice)
    if isinstance(text := said.get("content"), str):
        said["content"] = rng.choice(([text], [{"type": "text", "text": text}], {"type": "text", "text": text}))


def _halves(rng: Random, answer: Row, choice: Row) -> None:
    said = _said(choice)
    if isinstance(text := said.get("content"), str):
        said["content"] = rng.choice((f"{text}{HALF}", f"{OTHER_HALF}{text}", text))


def _lists(rng: Random, answer: Row, choice: Row) -> None:
    if said := _said(choice):
        said["reasoning_details"] = [{"text": "hm"}]


def _finish(rng: Random, answer: Row, choice: Row) -> None:
    if choice.get("finish_reason"):
        choice["finish_reason"] = rng.choice((None, "", "stop", "tool_calls", 5))


def _as_message(rng: Random, answer: Row, choice: Row) -> None:
    if "delta" in choice:
        choice["message"] = choice.pop("delta")


def _usage(rng: Random, answer: Row, choice: Row) -> None:
    choice["usage"] = {"prompt_tokens": 3, "completion_tokens": rng.randrange(9)}


SLIPS: tuple[Callable[[Random, Row, Row], None], ...] = (
    _as_function,
    _as_message,
    _as_parts,
    _finish,
    _halves,
    _lists,
    _usage,
    _of_calls(_arguments),
    _of_calls(lambda rng, call: call.update(index=rng.choice((0, "0", None, -1, True)))),
    _of_calls(lambda rng, call: call.update(id=rng.choice(("same", "", None, 7)))),
    _of_calls(lambda rng, call: call.update(type=rng.choice((None, "tool", "function")))),
    lambda rng, answer, choice: choice.update(index=rng.choice((None, "0", True))),
    lambda rng, answer, choice: _said(choice).update(role=rng.choice(("assistant", None, "ASSISTANT"))),
    lambda rng, answer, choice: answer.update(id=rng.choice((None, 5)), model=rng.choice((None, ["m"]))),
    lambda rng, answer, choice: answer.update(usage=rng.choice(("none", [], {"prompt_tokens": "3"}))),
    lambda rng, answer, choice: answer["choices"].append(None),
)
