"""Rows packed one behind the other in passes of one shape: the same loss and gradients as each row by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from distiller.config import TrainConfig
from distiller.training.attention import NAME
from distiller.training.batches import EncodedRow, passes, plan, tensors
from distiller.training.learner import Learner
from distiller.training.methods.hard import HardLabel
from distiller.training.shapes import PassShape, cut, filled, fitting, idle
from tests.distiller.tiny_student import student
from tests.distiller.training.graded_rows import ROWS, graded, row

CONFIG = TrainConfig(precision="fp32", device="cpu", threads=1, freeze_embeddings=False, packing=True)
SHAPE = PassShape(tokens=96, documents=12, answers=24, longest=24)


ALIKE = [EncodedRow((*range(18), 50 + i, 60 + i), 19, 1.0) for i in range(6)]
MANY = [row(i, 3 + 5 * i % 17, 1 + i % 4) for i in range(60)]


def same(one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]) -> bool:
    assert one[0] == pytest.approx(other[0], rel=1e-5) and one[1].keys() == other[1].keys()
    return all(torch.allclose(g, other[1][n], atol=1e-4, rtol=1e-4) for n, g in one[1].items())


def sizes(part: object) -> list[object]:
    found = [t.shape for t in (part.tokens, part.at, part.targets, part.weights)]  # type: ignore[attr-defined]
    documents = part.documents  # type: ignore[attr-defined]
    return [*found, documents.positions.shape, documents.starts.shape, documents.longest]


@pytest.mark.parametrize("rows", [ROWS, ALIKE, [*ROWS, *ALIKE[:1]]])
def test_a_filled_pass_has_the_loss_and_gradients_of_its_rows_one_by_one(
    tmp_path: Path, rows: list[EncodedRow]
) -> None:
    learner = Learner(CONFIG, student(tmp_path), HardLabel())
    assert learner.packing and learner.model.config._attn_implementation == NAME
    together = graded(learner, [filled(part, SHAPE, "cpu") for part in cut(rows, SHAPE)])
    learner.model.set_attn_implementation("eager")
    assert same(together, graded(learner, [tensors([r], "cpu") for r in rows]))


def test_it_learns_what_sharing_a_beginning_learns(tmp_path: Path) -> None:
    learner = Learner(CONFIG, student(tmp_path), HardLabel())
    shared = list(passes(ALIKE, 1000, "cpu"))
    assert [p.prefix is not None for p in shared] == [True]
    shape = fitting([ALIKE], 1000)
    assert same(graded(learner, shared), graded(learner, [filled(ALIKE, shape, "cpu")]))


def test_what_another_row_says_does_not_reach_a_packed_one(tmp_path: Path) -> None:
    learner = Learner(CONFIG, student(tmp_path), HardLabel())
    said = [learner._summed(filled([first, ROWS[2]], SHAPE, "cpu")) for first in (ROWS[0], row(9, 9, 3))]
    alone = [learner._summed(filled([first], SHAPE, "cpu")) for first in (ROWS[0], row(9, 9, 3))]
    assert torch.allclose(said[0] - alone[0], said[1] - alone[1], atol=1e-4)


def test_an_idle_pass_adds_nothing(tmp_path: Path) -> None:
    loss, grads = graded(Learner(CONFIG, student(tmp_path), HardLabel()), [idle(ROWS[0], SHAPE, "cpu")])
    assert loss == 0 and all(not g.any() for g in grads.values())


@pytest.mark.parametrize("budget", [5, 40, 100, 10_000])
def test_all_passes_of_a_run_have_one_shape_and_every_row_is_in_one(budget: int) -> None:
    steps = [[MANY[i] for i in step] for step in plan(MANY, 2, 16, seed=0, by_length=False)]
    shape = fitting(steps, budget)
    assert shape.tokens <= max(budget, *(len(r.tokens) for r in MANY))
    for rows in steps:
        parts = list(cut(rows, shape))
        assert [r for part in parts for r in part] == rows
        made = [filled(part, shape, "cpu") for part in parts]
        assert all(sizes(p) == sizes(filled(MANY[:1], shape, "cpu")) for p in made)
        assert sum(p.real_tokens for p in made) == sum(len(r.tokens) for r in rows)
        for part in made:
            assert part.documents is not None
            lengths = part.documents.starts.diff()
            assert lengths.sum() == shape.tokens and lengths.min() >= 0 and lengths.max() <= shape.longest


def test_little_of_a_shape_is_padding() -> None:
    rows = [row(i, 60 + 37 * i % 200, 20 + 11 * i % 50) for i in range(600)]
    steps = [[rows[i] for i in step] for step in plan(rows, 2, 128, seed=0, by_length=False)]
    real, computed = 0, 0
    for budget in (4_096, 16_384, 65_536):
        shape = fitting(steps, budget)
        full = [rows for rows in steps if len(rows) == 128]  # of an epoch the last one is shorter
        real = sum(len(r.tokens) for rows in full for r in rows)
        computed = sum(shape.tokens for rows in full for _ in cut(rows, shape))
        assert real > 0.9 * computed


def test_a_shape_grows_seldom_for_rows_that_were_not_foreseen() -> None:
    shape, seen = fitting([ROWS], 96), set()
    for length in range(4, 400):
        late = [row(0, length, length // 2)]
        shape = shape if shape.holds(late) else shape.grown(late)
        assert [len(p) for p in cut([*ROWS, *late], shape)] and filled(late, shape, "cpu").real_tokens == len(
            late[0].tokens
        )
        seen.add(shape)
    assert len(seen) <= 12


@pytest.mark.parametrize(
    ("how", "backend"),
    [
        ({}, "inductor"),
        ({"freeze_embeddings": True}, "aot_eager"),
    ],
)
def test_layers_are_compiled_in_the_first_step_and_never_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], backend: str
) -> None:
    whole = torch.nn.Module.compile
    # What is traced, and how often, is the same whoever makes code of it; not everybody is quick on a CPU.
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: whole(self, backend=backend, **how))
    torch._dynamo.reset()
    config = replace(CONFIG, compile=True, tokens_per_pass=256, **how)
    base = student(tmp_path)
    torch.manual_seed(0)  # for adapters
    learner = Learner(config, base, HardLabel())
    steps = [[MANY[i] for i in step] for step in plan(MANY, 1, 11, seed=0, by_length=False)]
    learner.expect(steps)
    torch.manual_seed(0)
    plain = Learner(replace(config, compile=False), tmp_path, HardLabel())
    compiled = []
    for n, rows in enumerate(steps):
        loss = learner.step(rows, 1e-3, n)
        assert learner.loss(MANY[:20]) is not None
        assert loss == pytest.approx(plain.step(rows, 1e-3, n), rel=1e-3)
        compiled.append(counters["stats"]["unique_graphs"])
    assert compiled[0] == compiled[-1] > 0 and len(steps) > 4
