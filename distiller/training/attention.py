"""Attention of our own, for what transformers' implementations make slow or cannot do.

Rows that lie one behind the other attend each to itself: nothing padded, nothing seen across. On a GPU that is torch's
variable-length flash attention. On a CPU, where torch's fused attention has a slow backward pass, attention is
written out: query heads that share a key head are one matrix, the mask is where the product is added to, and nothing
is held twice. It is registered with transformers under a name, so that any of its models can be asked to use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    States = tuple[Tensor, Tensor, Tensor]

NAME = "locum"


def suits(model: Any) -> bool:
    """Whether every layer of the model attends, in the plain way, to all that came before: a window, or a recurrent
    state that packed rows would hand on to each other, does not."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ("full_attention",))
    plain = kinds == {"full_attention"} and getattr(config, "attn_logit_softcapping", None) is None
    return plain and bool(getattr(model, "_supports_attention_backend", False))


def use(model: Any) -> None:
    """Lets the model attend in this way."""
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.config._attn_implementation != NAME:
        # What is written out for rows of any length is no one shape, and so nothing to compile.
        apart: Any = torch.compiler.disable
        AttentionInterface.register(NAME, attend if model.device.type == "cuda" else apart(attend))
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it: query (rows, heads, length, width), key and value (rows, key heads, length, width).

    ``attention_mask``: (rows, 1, length, key length), what may be seen; None: all that came before.
    ``cu_seq_lens_q``: (packed rows + 1,) int32, where packed rows begin; None: the pass isn't packed. Returns
    (rows, length, heads, width).
    """
    states, scale = (query, key, value), scaling or query.shape[-1] ** -0.5
    if cu_seq_lens_q is not None:
        return _packed(states, cu_seq_lens_q, max_length_q, scale), None
    if query.is_cuda or kwargs.get("dropout"):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scale, **kwargs
        )
        return out
    return written_out(states, attention_mask, scale), None


def written_out(states: States, mask: Tensor | None, scale: float) -> Tensor:
    """Softmax of the scaled products, times the values; arguments and result as of ``attend``."""
    import torch

    query, key, value = states
    rows, heads, length, width = query.shape
    groups, seen = key.shape[1], key.shape[2]
    shared = heads // groups  # query heads that share a key head
    lowest = torch.finfo(query.dtype).min
    if mask is None:
        mask = torch.ones(1, 1, length, seen, dtype=torch.bool).tril(seen - length)
    if mask.shape[0] == 1 or mask.stride(0) == 0:  # the same for every row: it is not written out for each
        one = query.new_zeros(length, seen).masked_fill(~mask[0, 0], lowest)
        added = one.repeat(shared, 1).expand(rows * groups, -1, -1)
    else:
        every = query.new_zeros(mask.shape).masked_fill(~mask, lowest)[:, :, None]
        added = every.expand(rows, groups, shared, length, seen).reshape(rows * groups, -1, seen)
    products = torch.baddbmm(
        added, query.reshape(rows * groups, -1, width), key.reshape(rows * groups, seen, width).mT, alpha=scale
    )  # (rows * key heads, shared * length, key length)
    out = torch.bmm(products.softmax(-1), value.reshape(rows * groups, seen, width))
    return out.view(rows, heads, length, width).transpose(1, 2).contiguous()


def _packed(states: States, starts: Tensor, longest: int, scale: float) -> Tensor:
    """Attention of rows one behind the other: states of one row, (1, heads, length, width)."""
    import torch

    if not states[0].is_cuda:
        split = (torch.split(t, starts.diff().tolist(), dim=2) for t in states)
        rows = [own for own in zip(*split, strict=True) if own[0].shape[2]]
        return torch.cat([written_out(own, None, scale) for own in rows], dim=1)
    q, k, v = (t.squeeze(0).transpose(0, 1) for t in states)  # (length, heads, width)
    # torch's own wrapper of it refuses, in some versions, what it does well: query heads that share a key head.
    flash = torch.ops.aten._flash_attention_forward
    out: Tensor = flash(q, k, v, starts, starts, longest, longest, 0.0, True, False, scale=scale)[0]
    return out.unsqueeze(0)
