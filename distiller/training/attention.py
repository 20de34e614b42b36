"""Attention within each of several rows that lie one behind the other: nothing padded, nothing seen across.

Registered with transformers under a name of its own, so that any of its models can be asked to use it. On a GPU it is
torch's variable-length flash attention; elsewhere, and for passes that aren't packed, torch's scaled dot product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PACKED = "locum_packed"


def can_pack(model: Any) -> bool:
    """Whether every layer of the model attends to all that came before: a window, or a recurrent state that rows would
    hand on to each other, asks for rows of their own."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ("full_attention",))
    return kinds == {"full_attention"} and bool(getattr(model, "_supports_attention_backend", False))


def use_packed(model: Any) -> None:
    """Lets the model attend in packed rows too."""
    from transformers import AttentionInterface, AttentionMaskInterface  # noqa: PLC0415  (heavy)
    from transformers.masking_utils import sdpa_mask  # noqa: PLC0415

    if model.config._attn_implementation != PACKED:
        AttentionInterface.register(PACKED, attend)
        AttentionMaskInterface.register(PACKED, sdpa_mask)
        model.set_attn_implementation(PACKED)


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
    """As transformers calls it: query (1, heads, length, width), key and value (1, key heads, length, width).

    ``cu_seq_lens_q``: (rows + 1,) int32, where packed rows begin; None: the pass isn't packed. Returns (1, length,
    heads, width).
    """
    if cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward  # noqa: PLC0415

        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return out
    if query.is_cuda:
        return _flash((query, key, value), cu_seq_lens_q, max_length_q, scaling), None
    return _row_by_row((query, key, value), cu_seq_lens_q, scaling), None


def _flash(states: tuple[Tensor, Tensor, Tensor], starts: Tensor, longest: int, scaling: float | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415

    q, k, v = (t.squeeze(0).transpose(0, 1) for t in states)  # (length, heads, width)
    grouped = q.shape[1] != k.shape[1]
    out = varlen_attn(q, k, v, starts, starts, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=grouped)
    assert not isinstance(out, tuple)  # nothing beside the output was asked for
    return out.unsqueeze(0)


def _row_by_row(states: tuple[Tensor, Tensor, Tensor], starts: Tensor, scaling: float | None) -> Tensor:
    import torch  # noqa: PLC0415

    lengths = starts.diff().tolist()
    parts = [
        torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
        for q, k, v in zip(*(torch.split(t, lengths, dim=2) for t in states), strict=True)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2)
