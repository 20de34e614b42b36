"""Rows packed one behind the other: the same loss and gradients as each row by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distiller.config import TrainConfig
from distiller.training.attention import NAME, suits, written_out
from distiller.training.batches import EncodedRow, idle, packed, passes, tensors
from distiller.training.learner import Learner
from distiller.training.methods.hard import HardLabel
from tests.distiller.tiny_student import student

CONFIG = TrainConfig(precision="fp32", device="cpu", threads=1, freeze_embeddings=False, packing=True)


def row(n: int, prompt: int, answer: int, weight: float = 1.0) -> EncodedRow:
    return EncodedRow(tuple((7 * n + 3 * i) % 200 for i in range(prompt + answer)), prompt, weight)


ROWS = [row(1, 9, 3), row(2, 4, 1, 0.5), row(3, 17, 6), row(4, 2, 2, 3.0)]


def graded(learner: Learner, parts: list) -> tuple[float, dict[str, torch.Tensor]]:  # type: ignore[type-arg]
    losses = [learner._summed(part) for part in parts]
    for loss in losses:
        loss.backward()
    grads = {n: w.grad.clone() for n, w in learner.weights.items() if w.grad is not None}
    learner.optimizer.zero_grad()
    return sum(loss.item() for loss in losses), grads


def test_a_packed_pass_has_the_loss_and_gradients_of_its_rows_one_by_one(tmp_path: Path) -> None:
    learner = Learner(CONFIG, student(tmp_path), HardLabel())
    together, grads = graded(learner, [packed(ROWS, "cpu")])
    learner.model.set_attn_implementation("eager")
    apart, expected = graded(learner, [tensors([r], "cpu") for r in ROWS])
    assert together == pytest.approx(apart, rel=1e-5) and grads.keys() == expected.keys()
    assert all(torch.allclose(g, grads[n], atol=1e-4, rtol=1e-4) for n, g in expected.items())


def test_what_another_row_says_does_not_reach_a_packed_one(tmp_path: Path) -> None:
    learner = Learner(CONFIG, student(tmp_path), HardLabel())
    said = [learner._summed(packed([first, replace(ROWS[2])], "cpu")) for first in (ROWS[0], row(9, 9, 3))]
    alone = [learner._summed(packed([first], "cpu")) for first in (ROWS[0], row(9, 9, 3))]
    assert torch.allclose(said[0] - alone[0], said[1] - alone[1], atol=1e-4)


def test_packing_is_left_to_rows_that_have_nothing_to_share(tmp_path: Path) -> None:
    learner = Learner(CONFIG, student(tmp_path), HardLabel())
    assert learner.packing and learner.model.config._attn_implementation == NAME
    alike = [EncodedRow((*range(40), 50 + i, 60 + i), 41, 1.0) for i in range(6)]
    parts = list(passes([*alike, *ROWS], 1000, "cpu", packing=True))
    assert [p.prefix is None for p in parts] == [True, False]
    assert parts[0].tokens.shape == (1, sum(len(r.tokens) for r in ROWS)) and len(parts[1].tokens) == 6
    mixed, grads = graded(learner, parts)
    learner.model.set_attn_implementation("eager")
    apart, expected = graded(learner, [tensors([r], "cpu") for r in [*alike, *ROWS]])
    assert mixed == pytest.approx(apart, rel=1e-5)
    assert all(torch.allclose(g, grads[n], atol=1e-4, rtol=1e-4) for n, g in expected.items())


def test_packed_passes_keep_the_budget_and_every_row() -> None:
    rows = [row(i, 3 + i, 2) for i in range(12)]
    parts = list(passes(rows, 40, "cpu", packing=True))
    assert sum(p.real_tokens for p in parts) == sum(len(r.tokens) for r in rows) == sum(p.tokens.numel() for p in parts)
    assert all(p.tokens.numel() <= 40 for p in parts)


@pytest.mark.parametrize("packing", [False, True])
def test_an_idle_pass_adds_nothing(tmp_path: Path, packing: bool) -> None:
    learner = Learner(CONFIG, student(tmp_path), HardLabel())
    for shared in (False, True):
        part = idle(ROWS[0], "cpu", shared, packing)
        assert (part.prefix is not None) == shared
        loss, grads = graded(learner, [part])
        assert loss == 0 and all(not g.any() for g in grads.values())


def test_a_model_with_a_window_is_not_packed(tmp_path: Path) -> None:
    model = Learner(CONFIG, student(tmp_path), HardLabel()).model
    assert suits(model)
    model.config.layer_types = ["sliding_attention", "full_attention"]
    assert not suits(model)


def test_activations_computed_twice_change_no_gradient(tmp_path: Path) -> None:
    rows = [EncodedRow((*range(20), 50 + i, 60 + i), 21, 1.0) for i in range(6)]
    moved = []
    for again in (False, True):
        learner = Learner(
            replace(CONFIG, packing=False, activation_checkpointing=again), student(tmp_path), HardLabel()
        )
        loss = learner.step(rows, 1e-3, 0)
        moved.append((loss, [w.detach().clone() for w in learner.weights.values()]))
    assert moved[0][0] == pytest.approx(moved[1][0], rel=1e-5)
    assert all(torch.allclose(a, b, atol=2e-4) for a, b in zip(moved[0][1], moved[1][1], strict=True))


@pytest.mark.parametrize("kind", ["all before", "with a beginning", "by row"])
def test_attention_written_out_is_torchs_own(kind: str) -> None:
    torch.manual_seed(0)
    seen = 9 if kind == "with a beginning" else 6
    query = torch.randn(2, 4, 6, 8, requires_grad=True)
    key, value = (torch.randn(2, 2, seen, 8, requires_grad=True) for _ in range(2))
    mask = torch.ones(6, seen, dtype=torch.bool).tril(seen - 6).expand(2, 1, 6, seen)
    if kind == "by row":
        mask = mask & (torch.arange(seen) >= torch.tensor([0, 2])[:, None])[:, None, None] | torch.eye(
            6, dtype=torch.bool
        )
    states = (query, key, value)
    ours = written_out(states, None if kind == "all before" else mask, 0.3)
    theirs = torch.nn.functional.scaled_dot_product_attention(*states, attn_mask=mask, scale=0.3, enable_gqa=True)
    assert torch.allclose(ours, theirs.transpose(1, 2), atol=1e-6)
    down = torch.randn_like(ours)
    for one, other in zip(
        torch.autograd.grad(ours, states, down), torch.autograd.grad(theirs.transpose(1, 2), states, down), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-5)
