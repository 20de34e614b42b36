"""One pass through a model, student or teacher: what it computes where the next token is an answer's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distiller.training import attention
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

    A shared beginning is computed once: every row attends to its keys and values. Packed rows attend each to itself.
    """
    decoder = model.get_decoder()
    if part.documents is not None:
        out = _packed(model, part, bool(layers))
    elif part.prefix is not None:
        before = decoder(part.prefix, use_cache=True)
        before.past_key_values.batch_repeat_interleave(len(part.tokens))
        out = decoder(
            part.tokens, past_key_values=before.past_key_values, use_cache=True, output_hidden_states=bool(layers)
        )
    else:
        out = decoder(part.tokens, use_cache=False, output_hidden_states=bool(layers))
    hidden = out.last_hidden_state.flatten(0, 1).index_select(0, part.at)  # of (rows, length, width)
    if part.prefix is not None and _sharded(decoder):
        # Of the last layer only keys and values are used here, and a sharded layer makes its weights whole again for
        # the backward pass when the gradient of its output comes: there has to be one.
        hidden = hidden + 0 * before.last_hidden_state.sum()
    return Outputs(
        hidden=hidden,
        output_weight=output_weight,
        layers={i: out.hidden_states[i].flatten(0, 1).index_select(0, part.at) for i in layers},
    )


def _packed(model: Any, part: Pass, layers: bool) -> Any:
    documents = part.documents
    assert documents is not None
    attention.use(model)
    return model.get_decoder()(
        part.tokens,
        position_ids=documents.positions,
        # A ready mask is taken as it is: transformers would else look for rows in the positions, and wait for the GPU.
        attention_mask=documents.positions.new_ones((1, 1, 1, 1)).bool(),
        use_cache=False,
        output_hidden_states=layers,
        cu_seq_lens_q=documents.starts,
        max_length_q=documents.longest,
    )


def _sharded(module: Any) -> bool:
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(m, FSDPModule) for m in module.modules())
