"""One pass through a model, student or teacher: what it computes where the next token is an answer's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distiller.training.batches import Pass

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model computed for a pass, at its answer positions alone.

    hidden: (positions, width), the last layer's output behind the final norm. output_weight: (vocabulary, width),
    the output embedding: their product is the logits. layers: the asked hidden layers' outputs by their index,
    each (positions, width); 0 is the input embedding's.
    """

    hidden: Tensor
    output_weight: Tensor
    layers: dict[int, Tensor] = field(default_factory=dict)


def answers(model: Any, part: Pass, output_weight: Tensor, layers: tuple[int, ...] = ()) -> Outputs:
    """Runs a causal language model's decoder over the pass; logits are left to who needs them.

    A shared beginning is computed once: every row attends to its keys and values.
    """
    decoder = model.get_decoder()
    cache = None
    if part.prefix is not None:
        cache = decoder(part.prefix, use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(part.tokens))
    out = decoder(
        part.tokens, past_key_values=cache, use_cache=cache is not None, output_hidden_states=bool(layers)
    )  # each state: (rows, length, width)
    return Outputs(
        hidden=out.last_hidden_state.flatten(0, 1)[part.at],
        output_weight=output_weight,
        layers={i: out.hidden_states[i].flatten(0, 1)[part.at] for i in layers},
    )
