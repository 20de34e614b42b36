"""Soft labels known in part: by hand, and what each way to take the rest does to the whole distribution's gradient."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
from torch import Tensor

from distiller.training.losses.divergences import Divergence
from distiller.training.losses.sparse_labels import Rest, SparseTargets, sparse_soft_label

DOUBLE = torch.float64


def gradient(
    logits: Tensor, known: SparseTargets, answer: Tensor, rest: Rest, kind: str = "forward"
) -> tuple[float, Tensor]:
    """The loss and its slope at the logits themselves: the output embedding is the identity."""
    asked = logits.clone().requires_grad_()
    weights = torch.ones(len(logits), dtype=logits.dtype)
    loss = sparse_soft_label(
        asked, torch.eye(logits.shape[1], dtype=logits.dtype), known, answer, weights,
        divergence=Divergence(kind, 0.4), rest=rest, mix=1.0,  # type: ignore[arg-type]
    )  # fmt: skip
    loss.backward()
    assert asked.grad is not None
    return loss.item(), asked.grad


def top(p: Tensor, k: int, drawn: bool = True) -> SparseTargets:
    named = p.topk(k)
    return SparseTargets(named.indices, named.values.log(), torch.full((len(p),), drawn))


def test_a_named_token_and_a_tail_by_hand() -> None:
    # The teacher: 1/2 on token 0, 1/2 elsewhere. The student: even over 4 tokens, so 1/4 and 3/4.
    known = SparseTargets(torch.tensor([[0]]), torch.tensor([[log(0.5)]], dtype=DOUBLE), torch.tensor([True]))
    loss, slope = gradient(torch.zeros(1, 4, dtype=DOUBLE), known, torch.tensor([2]), "tail")
    assert loss == pytest.approx(0.5 * log(2) + 0.5 * log(2 / 3))
    assert torch.allclose(slope, torch.tensor([[0.25 - 0.5, *[0.25 - 0.5 / 3] * 3]], dtype=DOUBLE))
    loss, slope = gradient(torch.zeros(1, 4, dtype=DOUBLE), known, torch.tensor([2]), "truncated")
    assert loss == pytest.approx(log(4)) and torch.allclose(
        slope, torch.tensor([[-0.75, 0.25, 0.25, 0.25]], dtype=DOUBLE)
    )
    loss, slope = gradient(torch.zeros(1, 4, dtype=DOUBLE), known, torch.tensor([2]), "sampled")
    assert loss == pytest.approx(0.5 * log(4) + log(4))
    assert torch.allclose(slope, torch.tensor([[1.5 / 4 - 0.5, 1.5 / 4, 1.5 / 4 - 1, 1.5 / 4]], dtype=DOUBLE))


@pytest.mark.parametrize("kind", ["forward", "reverse", "jsd", "skewed", "skewed-reverse"])
def test_every_divergence_over_named_tokens_and_tail_has_its_definitions_gradient(kind: str) -> None:
    torch.manual_seed(0)
    p, logits = torch.randn(4, 9, dtype=DOUBLE).softmax(-1), torch.randn(4, 9, dtype=DOUBLE)
    known, answer = top(p, 3), torch.zeros(4, dtype=torch.long)
    asked = logits.clone().requires_grad_()
    q = asked.softmax(-1)
    named = q.gather(1, known.ids)
    outcomes = torch.cat([named, 1 - named.sum(-1, keepdim=True)], -1)
    theirs = torch.cat([known.log_p.exp(), 1 - known.log_p.exp().sum(-1, keepdim=True)], -1)
    m = {"jsd": 0.4, "skewed": 0.4}.get(kind, 0.6) * theirs + {"jsd": 0.6, "skewed": 0.6}.get(kind, 0.4) * outcomes
    kl = lambda a, b: (a * (a / b).log()).sum()  # noqa: E731
    expected = {
        "forward": lambda: kl(theirs, outcomes),
        "reverse": lambda: kl(outcomes, theirs),
        "jsd": lambda: 0.4 * kl(theirs, m) + 0.6 * kl(outcomes, m),
        "skewed": lambda: kl(theirs, m),
        "skewed-reverse": lambda: kl(outcomes, m),
    }[kind]()
    expected.backward()
    loss, slope = gradient(logits, known, answer, "tail", kind)
    assert loss == pytest.approx(expected.item()) and torch.allclose(slope, asked.grad)


def test_with_every_token_named_all_ways_are_the_whole_divergence() -> None:
    torch.manual_seed(0)
    p, logits = torch.randn(4, 6, dtype=DOUBLE).softmax(-1), torch.randn(4, 6, dtype=DOUBLE)
    whole = logits.softmax(-1) - p
    for rest in ("tail", "sampled", "truncated"):
        assert torch.allclose(gradient(logits, top(p, 6), torch.zeros(4, dtype=torch.long), rest)[1], whole)  # type: ignore[arg-type]


def test_truncation_is_biased_where_tail_and_draws_are_not() -> None:
    torch.manual_seed(0)
    p, logits = (2 * torch.randn(1, 40, dtype=DOUBLE)).softmax(-1), torch.randn(1, 40, dtype=DOUBLE)
    q, draws = logits.softmax(-1), 60_000
    known = top(p, 5)
    named, whole = known.ids[0], (q - p)[0]
    unnamed = [i for i in range(40) if i not in named.tolist()]

    _, tail = gradient(logits, known, torch.tensor([0]), "tail")
    assert torch.allclose(tail[0, named], whole[named])
    assert tail[0, unnamed].sum().item() == pytest.approx(whole[unnamed].sum().item())

    counts = torch.bincount(torch.multinomial(p[0], draws, replacement=True), minlength=40)
    each = torch.stack([gradient(logits, known, torch.tensor([y]), "sampled")[1][0] for y in range(40)])
    mean = (each * counts[:, None] / draws).sum(0)
    assert (mean - whole).abs().max() < 4 * (0.25 / draws) ** 0.5  # four standard errors of a share
    assert torch.allclose((each * p[0][:, None]).sum(0), whole)  # and exactly, in expectation

    _, cut = gradient(logits, known, torch.tensor([0]), "truncated")
    missing = 1 - p[0, named].sum()
    assert missing > 0.1
    assert torch.allclose(cut[0, named] - whole[named], p[0, named] - p[0, named] / (1 - missing))
    assert (cut[0] - whole).abs().max() > 20 * (mean - whole).abs().max()


def test_a_student_that_equals_its_teacher_is_at_rest_unless_the_rest_is_cut_off() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 12, dtype=DOUBLE)
    known, answer = top(logits.softmax(-1), 4), torch.zeros(2, dtype=torch.long)
    loss, slope = gradient(logits, known, answer, "tail")
    assert abs(loss) < 1e-12 and slope.abs().max() < 1e-12
    assert gradient(logits, known, answer, "truncated")[1].abs().max() > 0.01


def test_unknown_positions_learn_their_token_and_missing_names_count_for_nothing() -> None:
    torch.manual_seed(0)
    logits, answer = torch.randn(3, 5, dtype=DOUBLE), torch.tensor([1, 2, 0])
    ids = torch.tensor([[3, 1], [4, -1], [-1, -1]])
    log_p = torch.tensor([[log(0.6), log(0.2)], [log(0.7), 0.0], [0.0, 0.0]], dtype=DOUBLE)
    _, slope = gradient(logits, SparseTargets(ids, log_p, torch.zeros(3, dtype=torch.bool)), answer, "tail")
    q = logits.softmax(-1)
    assert slope[0, 3].item() == pytest.approx(q[0, 3].item() - 0.6)
    assert slope[1, 4].item() == pytest.approx(q[1, 4].item() - 0.7)
    assert slope[1, 0].item() == pytest.approx(q[1, 0].item() * (1 - 0.3 / (1 - q[1, 4].item())))
    assert torch.allclose(slope[2], q[2] - torch.eye(5, dtype=DOUBLE)[0])


def test_what_the_teacher_did_not_draw_takes_the_tail() -> None:
    torch.manual_seed(0)
    p, logits, answer = (
        torch.randn(2, 8, dtype=DOUBLE).softmax(-1),
        torch.randn(2, 8, dtype=DOUBLE),
        torch.tensor([1, 1]),
    )
    known = top(p, 3)
    half = SparseTargets(known.ids, known.log_p, torch.tensor([True, False]))
    _, mixed = gradient(logits, half, answer, "sampled")
    assert torch.allclose(mixed[0], gradient(logits, known, answer, "sampled")[1][0])
    assert torch.allclose(mixed[1], gradient(logits, known, answer, "tail")[1][1])


def test_a_teacher_that_names_all_its_mass_and_a_student_sure_of_it_give_finite_numbers() -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0]])
    known = SparseTargets(torch.tensor([[0, 1]]), torch.tensor([[log(1.0), log(exp(-30))]]), torch.tensor([True]))
    for kind in ("forward", "reverse", "jsd", "skewed", "skewed-reverse"):
        loss, slope = gradient(logits, known, torch.tensor([0]), "tail", kind)
        assert abs(loss) < 1e-3 and slope.isfinite().all() and slope.abs().max() < 1e-3
