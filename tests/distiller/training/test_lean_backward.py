"""Norms and gated activations that keep less say and learn the same as transformers' own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from transformers import CohereConfig, CohereForCausalLM, LlamaConfig, LlamaForCausalLM

from distiller.training import lean_backward

SMALL = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def drawn(*shape: int) -> Tensor:
    return torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)), requires_grad=True
    )


def llama(**more: Any) -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SMALL, **more))


def test_by_hand() -> None:
    hidden, weight = torch.tensor([[3.0, 4.0]], requires_grad=True), torch.tensor([1.0, 2.0], requires_grad=True)
    out = lean_backward.norm().apply(hidden, weight, 0.0)
    size = 12.5**0.5
    assert torch.allclose(out, torch.tensor([[3 / size, 8 / size]]))
    out[0, 0].backward()  # of 3 / sqrt((9 + 16) / 2)
    assert weight.grad is not None and torch.allclose(weight.grad, torch.tensor([3 / size, 0.0]))
    assert hidden.grad is not None
    assert torch.allclose(hidden.grad, torch.tensor([[1 / size - 9 / 2 / size**3, -12 / 2 / size**3]]))

    gate, up = torch.tensor([2.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    lean_backward.gated_silu().apply(gate, up).backward()
    s = torch.sigmoid(torch.tensor(2.0))
    assert up.grad is not None and torch.allclose(up.grad, 2 * s)
    assert gate.grad is not None and torch.allclose(gate.grad, 3 * (s + 2 * s * (1 - s)))


def test_slopes_are_those_of_small_differences() -> None:
    assert gradcheck(lambda h, w: lean_backward.norm().apply(h, w, 1e-5), (drawn(2, 3, 5), drawn(5)))
    assert gradcheck(lean_backward.gated_silu().apply, (drawn(3, 4), drawn(4, 3).T))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_model_says_and_learns_the_same(kind: torch.dtype) -> None:
    plain = llama().to(kind)
    spared = copy.deepcopy(plain)
    lean_backward.use(spared)
    ours = [m for m in spared.modules() if "forward" in vars(m)]
    assert len(ours) == 2 * 3 + 1  # two norms and one gate a layer, and the last norm
    tokens = torch.arange(24).view(2, 12)
    losses = [m(tokens, labels=tokens).loss for m in (plain, spared)]
    for loss in losses:
        loss.backward()
    close = {"rtol": 1e-4, "atol": 1e-6} if kind == torch.float32 else {"rtol": 0.05, "atol": 0.01}
    assert torch.allclose(*losses, **close)
    for (name, one), two in zip(plain.named_parameters(), spared.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, **close), name


def test_less_is_kept() -> None:
    def kept(model: Any) -> int:
        sizes: dict[int, int] = {}

        def note(t: Tensor) -> Tensor:
            sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            found = model(torch.arange(24).view(2, 12), use_cache=False)
        del found
        return sum(sizes.values())

    plain, spared = llama().to(torch.bfloat16), llama().to(torch.bfloat16)
    lean_backward.use(spared)
    assert kept(spared) < 0.9 * kept(plain)


def test_what_computes_otherwise_is_left_alone() -> None:
    tanh = llama(hidden_act="tanh")
    lean_backward.use(tanh)
    assert not any("forward" in vars(layer.mlp) for layer in tanh.model.layers)
    torch.manual_seed(0)
    less_mean = CohereForCausalLM(CohereConfig(**SMALL, pad_token_id=0, bos_token_id=1, eos_token_id=2))
    lean_backward.use(less_mean)  # its norm takes the mean off
    norms = [m for m in less_mean.modules() if hasattr(m, "variance_epsilon")]
    assert norms and not any("forward" in vars(m) for m in norms)
