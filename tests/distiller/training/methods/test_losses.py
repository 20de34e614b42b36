"""The losses of doubt and of features, by hand and against autograd."""

from __future__ import annotations

from math import log

import pytest
import torch

from distiller.training.losses.cross_entropy import answer_cross_entropy
from distiller.training.methods.confidence import confidence_loss
from distiller.training.methods.feature import feature_distance

DOUBLE = torch.float64


def test_doubt_by_hand_over_three_tokens() -> None:
    # Logits (log 2, 0, 0) make q (1/2, 1/4, 1/4): token 0 is what the student would say.
    logits = torch.tensor([[log(2), 0.0, 0.0]] * 2, dtype=DOUBLE, requires_grad=True)
    eye, ones = torch.eye(3, dtype=DOUBLE), torch.ones(2, dtype=DOUBLE)
    loss = confidence_loss(logits, eye, torch.tensor([0, 1]), ones, doubt=0.3)
    to_uniform = -log(3) + (log(2) + 2 * log(4)) / 3
    assert loss.item() == pytest.approx(log(2) + 0.7 * log(4) + 0.3 * to_uniform)
    loss.backward()
    right, wrong = [0.5 - 1, 0.25, 0.25], [0.5 - 0.1, 0.25 - 0.7 - 0.1, 0.25 - 0.1]
    assert logits.grad is not None and torch.allclose(logits.grad, torch.tensor([right, wrong], dtype=DOUBLE))


def test_without_doubt_it_is_the_cross_entropy() -> None:
    torch.manual_seed(0)
    hidden, output, targets = torch.randn(9, 4), torch.randn(7, 4), torch.randint(0, 7, (9,))
    plain = answer_cross_entropy(hidden, output, targets, torch.rand(9, generator=torch.manual_seed(1)))
    weights = torch.rand(9, generator=torch.manual_seed(1))
    assert torch.allclose(confidence_loss(hidden, output, targets, weights, doubt=0.0, chunk=4), plain)


def test_doubts_gradient_holds_against_finite_differences() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(5, 3, dtype=DOUBLE, requires_grad=True)
    output = torch.randn(6, 3, dtype=DOUBLE, requires_grad=True)
    targets, weights = torch.tensor([0, 1, 2, 3, 4]), torch.rand(5, dtype=DOUBLE)
    assert torch.autograd.gradcheck(
        lambda h, w: confidence_loss(h, w, targets, weights, doubt=0.4, chunk=2), (hidden, output)
    )


def test_the_distance_of_features_by_hand() -> None:
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
    projection = torch.tensor([[3.0, 0.0], [0.0, 0.0], [0.0, 0.0]])  # the first state becomes (3, 0, 0), the second 0
    loss = feature_distance(student, teacher, projection, torch.tensor([1.0, 0.5]))
    assert loss.item() == pytest.approx(16 / 25 + 0.5 * 1)
    exact = torch.tensor([[3.0, 0.0], [4.0, 0.0], [0.0, 0.5]])
    assert feature_distance(student, teacher, exact, torch.ones(2)).item() == pytest.approx(0, abs=1e-7)


def test_features_teach_student_and_projection_but_never_the_teacher() -> None:
    torch.manual_seed(0)
    student, projection = (torch.randn(s, requires_grad=True) for s in ((4, 3), (5, 3)))
    teacher = torch.randn(4, 5, requires_grad=True)
    feature_distance(student, teacher, projection, torch.ones(4)).backward()
    assert student.grad is not None and projection.grad is not None and teacher.grad is None
