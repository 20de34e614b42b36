"""One version's weights and tokenizer, and the two forward passes that batching needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from router.engine import cpu
from router.engine.grammar import Grammars
from router.engine.int8 import is_int8, load_int8
from router.engine.kv import PackedView, Shape, Slots
from router.engine.template import PromptTemplate
from router.errors import EngineError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "bf16", "fp32"]
#: Prefill lengths are rounded up to a multiple: oneDNN compiles a kernel per new length, and below 64
#: attention takes another path in bf16, so that a short prompt's logits would differ by up to 0.5 with
#: whether its prefix was at hand. With 64 they are the same to the last bit, packed or alone.
ROUND_TO = 64


@dataclass(slots=True)
class Model:
    """``ends``: token ids that end an answer. ``context``: most tokens of prompt and answer together."""

    name: str
    network: Any
    prompts: PromptTemplate
    ends: frozenset[int]
    context: int
    shape: Shape
    forms: Grammars

    @classmethod
    def load(cls, name: str, folder: Path, precision: Precision = "auto") -> Model:
        """Reads a Hugging Face folder, or one with eight-bit weights in the place of its own.

        Raises:
            EngineError: the folder is no decoder model that this engine can batch.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = _dtype(precision, device)
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            network: Any = (
                load_int8(folder, dtype)
                if is_int8(folder)
                else AutoModelForCausalLM.from_pretrained(
                    str(folder), dtype=dtype, attn_implementation="sdpa", local_files_only=True
                )
            )
        except (OSError, ValueError, KeyError) as e:
            raise EngineError(f"cannot load student {name!r} from {folder}: {e}") from e
        network = network.to(device).eval()
        config = network.config.get_text_config()
        ends, shape = _ends(network, tokenizer), _shape(config, dtype, device)
        forms = Grammars(tokenizer, int(config.vocab_size), ends)
        return cls(name, network, PromptTemplate(tokenizer), ends, _context(config), shape, forms)

    def encode(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        """The prompt's token ids by the model's own chat template.

        Raises:
            BadRequest: the template refuses the messages or the tools, or there is none.
        """
        return self.prompts.prompt(messages, tools)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.prompts.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def prefill(self, prompts: Sequence[Sequence[int]], prefix: torch.Tensor | None) -> tuple[torch.Tensor, PackedView]:
        """Runs prompts (without their shared prefix) side by side in one packed row.

        ``prefix``: (layers, 2, heads, P, size). Returns float32 logits (prompts, vocabulary) after each
        prompt's last token, and the keys and values of all of them in the order given.
        """
        import torch

        device, lengths = self.shape.device, [len(p) for p in prompts]
        used = sum(lengths)
        total = -(-used // ROUND_TO) * ROUND_TO
        packed = PackedView(self.shape, total, prefix)
        offset = packed.seen
        ids = torch.zeros(total, dtype=torch.long)
        ids[:used] = torch.tensor([t for p in prompts for t in p])
        positions = torch.zeros(total, dtype=torch.long)
        positions[:used] = torch.cat([torch.arange(offset, offset + n) for n in lengths])
        segments = torch.full((total,), -1)
        segments[:used] = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        own = (segments[:, None] == segments[None, :]).tril_()
        mask = torch.cat([torch.ones(total, offset, dtype=torch.bool), own], dim=1)
        last = torch.tensor(lengths).cumsum(0) - 1
        logits: torch.Tensor = self.network(
            input_ids=ids[None].to(device),
            position_ids=positions[None].to(device),
            attention_mask=mask[None, None].to(device),
            past_key_values=packed,
            logits_to_keep=last.to(device),
            use_cache=True,
        ).logits
        return logits[0].float(), packed

    def step(self, tokens: Sequence[int], slots: Slots) -> torch.Tensor:
        """One token further for every row in ``slots``: float32 logits (rows, vocabulary)."""
        import torch

        positions, mask = slots.advance()
        logits: torch.Tensor = self.network(
            input_ids=torch.tensor(tokens, device=self.shape.device)[:, None],
            position_ids=positions,
            attention_mask=mask,
            past_key_values=slots,
            use_cache=True,
        ).logits
        return logits[:, -1].float()


def precision_of(name: str) -> Precision:
    """The precision of that name. Raises EngineError where there is none."""
    known: tuple[Precision, ...] = ("auto", "bf16", "fp32")
    for precision in known:
        if precision == name:
            return precision
    raise EngineError(f"precision must be one of {', '.join(known)}, not {name!r}")


def _dtype(precision: Precision, device: torch.device) -> torch.dtype:
    import torch

    if precision == "auto":
        precision = "bf16" if device.type == "cuda" or cpu.has_fast_bf16(cpu.flags()) else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _ends(network: Any, tokenizer: Any) -> frozenset[int]:
    named = network.generation_config.eos_token_id
    ids = named if isinstance(named, list) else [named]
    return frozenset(i for i in [*ids, tokenizer.eos_token_id] if i is not None)


def _context(config: Any) -> int:
    """Sliding windows are honoured by never leaving the first one."""
    window = getattr(config, "sliding_window", None)
    longest = int(getattr(config, "max_position_embeddings", 4096))
    return min(longest, int(window)) if window else longest


def _shape(config: Any, dtype: torch.dtype, device: torch.device) -> Shape:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not kinds <= {"full_attention", "sliding_attention"}:
        raise EngineError(
            f"the embedded engine batches plain attention only, not {', '.join(sorted(kinds))}: "
            "serve this student by URL (vLLM, SGLang) or with llama-server"
        )
    heads = int(config.num_attention_heads)
    return Shape(
        layers=int(config.num_hidden_layers),
        heads=int(getattr(config, "num_key_value_heads", None) or heads),
        size=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        dtype=dtype,
        device=device,
    )
