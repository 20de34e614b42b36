"""The embedded engine's ways to one answer give one answer's signals: eight bits or the same weights written out, alone
or in a batch, with a beginning at hand or without."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distiller.forms.int8 import to_int8
from router.contracts.bundles import INT8_SCALE, INT8_WEIGHTS
from router.engine.generation import Delta, Job, Sampling
from router.engine.model import Model
from router.engine.scheduler import Scheduler
from router.engine.wire import logprobs
from router.scoring.signals import Signals, of_answer

GREEDY = Sampling(temperature=0)
CLOSE = 1e-3
"""How far a logarithm may lie from the other way's: float32, summed in another order."""
HOLD = 4


@pytest.fixture(scope="module")
def models(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    """Eight bits, and the same weights in float32."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("forms")
    int8 = to_int8(tiny, folder / "int8")
    whole = Path(shutil.copytree(tiny, folder / "whole"))
    kept = load_file(int8 / INT8_WEIGHTS)
    scales = {name.removesuffix(INT8_SCALE): kept.pop(name) for name in list(kept) if name.endswith(INT8_SCALE)}
    assert scales
    for name, scale in scales.items():
        kept[f"{name}.weight"] = kept[f"{name}.weight"].float() * scale[:, None]
    save_file(
        {k: v.to(torch.float32).contiguous() for k, v in kept.items()}, whole / "model.safetensors", {"format": "pt"}
    )
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    return Model.load("int8", int8, "fp32"), Model.load("whole", whole, "fp32")


def jobs(model: Model) -> list[Job]:
    shared = [{"role": "system", "content": "You name the team that a message goes to, in one word."}]
    texts = [f"Message {i}: " + "the parcel is late " * (i % 5 + 1) for i in range(9)]
    prompts = [model.encode([*shared, {"role": "user", "content": t}]) for t in texts]
    return [Job(prompt, 4 + i % 4, GREEDY, stream=i % 2 == 0) for i, prompt in enumerate(prompts)]


def answered(model: Model, asked: Sequence[Job], *, at_once: bool) -> list[list[Delta]]:
    scheduler = Scheduler(threads=1)
    scheduler.add(model)
    scheduler.start()
    found: list[list[Delta]] = []
    waiting: list[threading.Event] = []
    try:
        for job in asked:
            deltas, ended = list[Delta](), threading.Event()

            def emit(delta: Delta, deltas: list[Delta] = deltas, ended: threading.Event = ended) -> None:
                deltas.append(delta)
                if delta.finish:
                    ended.set()

            scheduler.submit(model.name, job, emit)
            found.append(deltas)
            waiting.append(ended)
            if not at_once:
                assert ended.wait(60)
        assert all(ended.wait(60) for ended in waiting)
    finally:
        scheduler.stop()
    return found


def told(model: Model, deltas: Sequence[Delta]) -> tuple[str, str | None, list[int], Signals | None]:
    tokens = [t for delta in deltas for t in delta.tokens]
    text = "".join(delta.text for delta in deltas)
    entries: list[Any] = logprobs(tokens, model.decode)["content"]
    signals = of_answer([e["logprob"] for e in entries], text, [e["token"] for e in entries], HOLD)
    return text, deltas[-1].finish, [t.id for t in tokens], signals


def assert_alike(one: Signals | None, other: Signals | None) -> None:
    assert one is not None and other is not None
    for name in ("sum_logprob", "mean_logprob", "min_logprob", "first_logprob", "q10_logprob", "q50_logprob"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), abs=CLOSE * one.tokens)
    assert (one.tokens, one.answer, one.complete) == (other.tokens, other.answer, other.complete)
    assert (one.held is None) == (other.held is None)


def ways(models: tuple[Model, Model], change: Any = lambda job: job) -> list[list[Any]]:
    """Each job's answer by every way: both forms, one by one and all at once; of each the second time, too, when the
    beginning that the prompts share is at hand."""
    found = []
    for model in models:
        asked = [change(job) for job in jobs(model)]
        for at_once in (False, True):
            twice = answered(model, [*asked, *asked], at_once=at_once)
            found += [[told(model, d) for d in twice[: len(asked)]], [told(model, d) for d in twice[len(asked) :]]]
    return found


def test_every_way_to_an_answer_gives_its_signals(models: tuple[Model, Model]) -> None:
    first, *others = ways(models)
    for other in others:
        for one, two in zip(first, other, strict=True):
            assert one[:3] == two[:3] and one[1] == "length"
            assert_alike(one[3], two[3])


def test_the_end_is_no_token_of_an_answer_by_any_way(models: tuple[Model, Model]) -> None:
    """The third token of each answer is made the model's end: what is told is the two before it."""
    free = [ids for _, _, ids, _ in ways(models)[0]]
    ending = free[0][2]
    cut = [ids.index(ending) if ending in ids else None for ids in free]
    assert cut[0] is not None
    ended = tuple(replace(model, ends=frozenset({ending})) for model in models)
    for way in ways(ended):  # type: ignore[arg-type]
        for (_, finish, ids, signals), whole, at in zip(way, free, cut, strict=True):
            assert ids == (whole if at is None else whole[:at])
            assert finish == ("length" if at is None else "stop")
            assert (signals.tokens if signals else 0) == len(ids)


def test_a_stop_string_takes_its_tokens_with_it_by_any_way(models: tuple[Model, Model]) -> None:
    """Of a token that it begins within, all; of those that it may have begun in, none."""
    free = ways(models)[0]
    model = models[0]
    pieces = [model.decode([t]) for t in free[0][2]]
    spells = next(i for i, piece in enumerate(pieces) if i and len(piece.strip()) > 1)
    stop = pieces[spells].strip()[1:]
    for way in ways(models, lambda job: replace(job, stops=(stop, pieces[spells] + "and more than it says"))):
        for (text, finish, ids, _), (whole, _, every, _) in zip(way, free, strict=True):
            at = whole.find(stop)
            assert text == (whole if at < 0 else whole[:at])
            assert finish == ("length" if at < 0 else "stop")
            kept = [n for n in range(len(every) + 1) if len(model.decode(every[:n])) <= len(text)]
            assert ids == (every if at < 0 else every[: kept[-1]])
