"""What a pass may take of a GPU's memory: so many tokens as pay and fit, with activations kept where they can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distiller.training.losses.fusion import ELEMENTS

if TYPE_CHECKING:
    from torch import Tensor

PAYS = 32_768
"""Tokens of a pass, beyond which a larger one is no quicker on any GPU that we know."""

LEAST = 8192
"""Tokens of a pass, below which computing activations twice costs less than ever shorter passes."""

_USED = 0.9
_CHECKPOINTED = (0, 4, 3, 2, 1)
"""Every how manieth layer's activations are computed twice; 0: none's."""


def fitting(model: Any, moving: dict[str, Tensor], free: int, longest: int, kept: bool) -> tuple[int, int]:
    """How many tokens a pass may have, and every how manieth layer computes its activations twice, 0: none.

    Args:
        model: as it lies on the device. moving: its weights that learn, with their gradients there.
        free: bytes that are left there. longest: tokens that a row may have. kept: whether none may be computed twice.
    """
    config, number = model.config.get_text_config(), next(model.parameters()).element_size()
    layers, width = config.num_hidden_layers, config.hidden_size
    of_layer = number * _numbers(config)
    optimizer = 2 * sum(w.numel() * w.element_size() for w in moving.values())
    output = model.get_output_embeddings().weight
    head = 8 * output.numel() * output.requires_grad + 2 * number * ELEMENTS["cuda"]
    room = max(0.0, _USED * free - optimizer - head)
    needed, tokens = max(LEAST, longest), 0
    for every in _CHECKPOINTED[: 1 if kept else None]:
        twice = layers // every if every else 0
        each = (layers - twice) * of_layer + twice * number * width + bool(twice) * of_layer
        tokens = min(max(PAYS, longest), int(room / each))
        if tokens >= needed:
            return tokens, every
    return max(tokens, 1), 0 if kept else 1


def _numbers(config: Any) -> int:
    """What a layer keeps of a token for the backward pass: what goes into each product, and what attention made."""
    width, heads = config.hidden_size, config.num_attention_heads
    of_head = getattr(config, "head_dim", None) or width // heads
    keys = (getattr(config, "num_key_value_heads", None) or heads) * of_head
    inner = getattr(config, "intermediate_size", None) or 4 * width
    return int(4 * width + 2 * heads * of_head + 2 * keys + 3 * inner)
