"""The loss, against values worked out by hand and against torch's own over whole logits."""

from __future__ import annotations

from math import exp, log

import torch

from distiller.training.losses.hard import answer_cross_entropy


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
