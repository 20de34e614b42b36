"""Rows to learn from, and the gradients that they give."""

from __future__ import annotations

import torch

from distiller.training.batches import EncodedRow
from distiller.training.learner import Learner


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
