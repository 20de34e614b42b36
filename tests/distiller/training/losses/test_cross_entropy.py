"""The loss, against values worked out by hand and against torch's own over whole logits."""

from __future__ import annotations

from math import exp, log

import torch

from distiller.training.losses.cross_entropy import answer_cross_entropy


def test_equals_the_hand_worked_value() -> None:
    # Width 2, vocabulary 3: logits of the first position are (1, 0, -1), of the second (2, 2, 2).
    output = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    hidden = torch.tensor([[1.0, 0.0]])
    first = answer_cross_entropy(hidden, output, torch.tensor([0]), torch.ones(1))
    assert abs(first.item() - log(1 + exp(-1) + exp(-2))) < 1e-6
    even = answer_cross_entropy(torch.zeros(1, 2), output, torch.tensor([2]), torch.ones(1))
    assert abs(even.item() - log(3)) < 1e-6


def test_a_weight_scales_its_position_and_zero_removes_it() -> None:
    torch.manual_seed(0)
    hidden, output, targets = torch.randn(3, 4), torch.randn(7, 4), torch.tensor([1, 6, 3])
    alone = [answer_cross_entropy(hidden[[i]], output, targets[[i]], torch.ones(1)) for i in range(3)]
    mixed = answer_cross_entropy(hidden, output, targets, torch.tensor([2.0, 0.0, 0.5]))
    assert torch.allclose(mixed, 2 * alone[0] + 0.5 * alone[2])


def test_chunks_change_neither_value_nor_gradients() -> None:
    torch.manual_seed(0)
    targets, weights = torch.randint(0, 11, (10,)), torch.rand(10)
    results = []
    for chunk in (3, 100):
        hidden = torch.arange(50.0).reshape(10, 5).sin().requires_grad_()
        output = torch.arange(55.0).reshape(11, 5).cos().requires_grad_()
        loss = answer_cross_entropy(hidden, output, targets, weights, chunk=chunk)
        loss.backward()
        results.append((loss, hidden.grad, output.grad))
        whole = torch.nn.functional.cross_entropy(hidden @ output.T, targets, reduction="none") @ weights
        assert torch.allclose(loss, whole)
    for chunked, at_once in zip(*results, strict=True):
        assert torch.allclose(chunked, at_once, atol=1e-6)


def test_no_chunk_ever_holds_more_logits_than_asked() -> None:
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.shape[-1:] == (1000,):
                sizes.append(result.numel())
            return result

    hidden, output = torch.randn(64, 4, requires_grad=True), torch.randn(1000, 4)
    with Watch():
        answer_cross_entropy(hidden, output, torch.zeros(64, dtype=torch.long), torch.ones(64), chunk=8).backward()
    assert max(sizes) == 8 * 1000


def test_gradients_hold_against_finite_differences() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    output = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    targets, weights = torch.tensor([0, 1, 2, 3, 4]), torch.rand(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda h, w: answer_cross_entropy(h, w, targets, weights, chunk=2) * 1.5, (hidden, output)
    )


def test_under_autocast_gradients_keep_their_tensors_types_and_are_near_the_exact_ones() -> None:
    torch.manual_seed(0)
    hidden, output = torch.randn(20, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    targets, weights = torch.randint(0, 50, (20,)), torch.rand(20)
    exact = torch.autograd.grad(answer_cross_entropy(hidden, output, targets, weights), (hidden, output))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = answer_cross_entropy(hidden, output, targets, weights, chunk=8)
    rough = torch.autograd.grad(loss, (hidden, output))
    assert loss.dtype == torch.float32
    for near, true in zip(rough, exact, strict=True):
        assert near.dtype == true.dtype and (near - true).norm() < 0.02 * true.norm()


def test_a_frozen_output_embedding_gets_no_gradient_and_without_any_asked_none_is_made() -> None:
    hidden, output = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3)
    answer_cross_entropy(hidden, output, torch.zeros(4, dtype=torch.long), torch.ones(4)).backward()
    assert hidden.grad is not None and output.grad is None
    with torch.no_grad():
        quiet = answer_cross_entropy(hidden, output, torch.zeros(4, dtype=torch.long), torch.ones(4))
    assert not quiet.requires_grad
