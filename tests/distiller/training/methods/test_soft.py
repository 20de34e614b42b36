"""Divergences and soft labels, against values worked out by hand and against autograd over whole logits."""

from __future__ import annotations

from math import log
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from distiller.training.losses.divergences import Divergence
from distiller.training.methods.soft import soft_label
from distiller.training.outputs import Outputs
from router.policy.distillation import DivergenceKind

KINDS = [Divergence(kind, mixed) for kind in get_args(DivergenceKind) for mixed in (0.1, 0.5)]
P, Q = (0.5, 0.25, 0.25), (0.25, 0.25, 0.5)
HALF = torch.float64


def naive(kind: str, mixed: float, p: Tensor, q: Tensor) -> Tensor:
    """The divergence by its definition, (positions,)."""

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (a * (a / b).log()).sum(-1)

    m = mixed * p + (1 - mixed) * q
    return {
        "forward": lambda: kl(p, q),
        "reverse": lambda: kl(q, p),
        "jsd": lambda: mixed * kl(p, m) + (1 - mixed) * kl(q, m),
        "skewed": lambda: kl(p, m),
        "skewed-reverse": lambda: kl(q, mixed * q + (1 - mixed) * p),
    }[kind]()


def outputs(positions: int, width: int, vocabulary: int, seed: int, dtype: torch.dtype = HALF) -> Outputs:
    torch.manual_seed(seed)
    return Outputs(
        hidden=torch.randn(positions, width, dtype=dtype, requires_grad=True),
        output_weight=torch.randn(vocabulary, width, dtype=dtype, requires_grad=True),
    )


@pytest.mark.parametrize(
    ("kind", "mixed", "nats"),
    [
        # p/q is (2, 1, 1/2).
        ("forward", 0.5, 0.5 * log(2) + 0.25 * log(1 / 2)),
        ("reverse", 0.5, 0.25 * log(1 / 2) + 0.5 * log(2)),
        # m = (3/8, 1/4, 3/8): KL(p||m) = 1/2 log 4/3 + 1/4 log 2/3, and KL(q||m) is the same by symmetry.
        ("jsd", 0.5, 0.5 * log(4 / 3) + 0.25 * log(2 / 3)),
        # m = p/5 + 4q/5 = (0.3, 0.25, 0.45)
        ("skewed", 0.2, 0.5 * log(0.5 / 0.3) + 0.25 * log(0.25 / 0.45)),
        # m = q/5 + 4p/5 = (0.45, 0.25, 0.3)
        ("skewed-reverse", 0.2, 0.25 * log(0.25 / 0.45) + 0.5 * log(0.5 / 0.3)),
    ],
)
def test_three_outcomes_by_hand(kind: DivergenceKind, mixed: float, nats: float) -> None:
    losses, _ = Divergence(kind, mixed)(torch.tensor([P]).log(), torch.tensor([Q]).log(), gradient=False)
    assert losses.item() == pytest.approx(nats, abs=1e-6)


def test_the_forward_gradient_by_hand_is_what_the_student_has_too_much_of() -> None:
    _, slope = Divergence("forward")(torch.tensor([P]).log(), torch.tensor([Q]).log(), gradient=True)
    assert slope is not None and torch.allclose(slope, torch.tensor([[-0.25, 0.0, 0.25]]), atol=1e-6)


@pytest.mark.parametrize("divergence", KINDS, ids=str)
def test_value_and_gradient_are_those_of_the_definition(divergence: Divergence) -> None:
    torch.manual_seed(0)
    teacher, logits = torch.randn(6, 9, dtype=HALF), torch.randn(6, 9, dtype=HALF, requires_grad=True)
    expected = naive(divergence.kind, divergence.mixed, teacher.softmax(-1), logits.softmax(-1))
    expected.sum().backward()
    with torch.no_grad():
        losses, slope = divergence(log_softmax(teacher, -1), log_softmax(logits, -1), gradient=True)
    assert torch.allclose(losses, expected) and slope is not None and torch.allclose(slope, logits.grad)
    same, none = divergence(log_softmax(teacher, -1), log_softmax(teacher, -1), gradient=True)
    assert none is not None and same.abs().max() < 1e-12 and none.abs().max() < 1e-12


@pytest.mark.parametrize("divergence", KINDS[::2], ids=str)
@pytest.mark.parametrize("mix", [0.3, 1.0])
def test_chunks_of_soft_labels_equal_the_formula_over_whole_logits(divergence: Divergence, mix: float) -> None:
    student, teacher = outputs(10, 5, 11, 1), outputs(10, 7, 11, 2)
    targets, weights, temperature = torch.randint(0, 11, (10,)), torch.rand(10, dtype=HALF), 2.5
    whole = student.hidden @ student.output_weight.T
    p = (teacher.hidden @ teacher.output_weight.T / temperature).softmax(-1).detach()
    soft = naive(divergence.kind, divergence.mixed, p, (whole / temperature).softmax(-1)) * temperature**2
    expected = ((1 - mix) * cross_entropy(whole, targets, reduction="none") + mix * soft) @ weights
    wanted = torch.autograd.grad(expected, (student.hidden, student.output_weight))
    loss = soft_label(
        student, teacher, targets, weights, divergence=divergence, temperature=temperature, mix=mix, chunk=3
    )
    loss.backward()
    assert torch.allclose(loss, expected)
    assert torch.allclose(student.hidden.grad, wanted[0]) and torch.allclose(student.output_weight.grad, wanted[1])
    assert teacher.hidden.grad is None and teacher.output_weight.grad is None


def test_gradients_hold_against_finite_differences() -> None:
    student, teacher = outputs(4, 3, 6, 1), outputs(4, 3, 6, 2)
    targets, weights = torch.tensor([0, 5, 2, 2]), torch.rand(4, dtype=HALF)

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        made = Outputs(hidden, weight)
        return soft_label(made, teacher, targets, weights, divergence=Divergence("jsd", 0.3), temperature=2, chunk=3)

    assert torch.autograd.gradcheck(loss, (student.hidden, student.output_weight))


def test_the_temperatures_square_keeps_the_gradients_size() -> None:
    # At a high temperature a distribution is 1/V + (z - mean z)/(V T): the gradient of T² KL nears (z - z_teacher)/V.
    student, teacher = outputs(3, 4, 8, 1), outputs(3, 4, 8, 2)
    logits = torch.randn(3, 8, dtype=HALF, requires_grad=True)
    eye = torch.eye(8, dtype=HALF)
    soft_label(
        Outputs(logits, eye), teacher, torch.zeros(3, dtype=torch.long), torch.ones(3, dtype=HALF),
        divergence=Divergence(), temperature=1000.0, mix=1.0,
    ).backward()  # fmt: skip
    apart = logits.detach() - (teacher.hidden @ teacher.output_weight.T).detach()
    assert torch.allclose(logits.grad, (apart - apart.mean(-1, keepdim=True)) / 8, rtol=0.02, atol=1e-3)
    assert student.hidden.grad is None


def test_a_vocabulary_padded_for_one_model_alone_is_left_out_of_the_comparison() -> None:
    student, teacher = outputs(4, 5, 12, 1), outputs(4, 5, 10, 2)
    loss = soft_label(
        student, teacher, torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=HALF), divergence=Divergence(), mix=1.0
    )
    loss.backward()
    shorter = Outputs(student.hidden, student.output_weight[:10].detach())
    again = soft_label(
        shorter, teacher, torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=HALF), divergence=Divergence(), mix=1.0
    )
    assert torch.allclose(loss, again) and student.output_weight.grad[10:].abs().max() == 0
