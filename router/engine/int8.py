"""Students whose matrices are eight bits a weight: half the memory of bf16, and quicker for few rows at once.

Weights alone are quantised, symmetrically, with one scale for each row (an output channel, or a token of the
vocabulary), as the "vector-wise" half of LLM.int8() (T. Dettmers et al., 2022, section 2). Its other half, eight bits
for activations too, was measured and left out: on SmolLM2-135M, without a path of their own for outliers, it moved the
next token's distribution seven times as far (KL 0.069 beside 0.010), and that path gives back the time that it gains.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.contracts.bundles import INT8_SCALE, INT8_WEIGHTS
from router.errors import EngineError

if TYPE_CHECKING:
    import torch

FEW_ROWS = 16
"""Up to so many rows torch's kernel for eight-bit weights is quicker than writing them out (measured on AVX-512). It is
quicker than bf16 too for up to about six."""


ALIGNED = 16
"""That kernel reads so many bytes at once: at other addresses it crashes, and of other widths it sums amiss."""


def is_int8(folder: Path) -> bool:
    """Whether a student's folder holds eight-bit weights."""
    return (folder / INT8_WEIGHTS).is_file()


def load_int8(folder: Path, dtype: torch.dtype) -> Any:
    """The decoder in ``folder``, its matrices in eight bits, all else in ``dtype``; nothing is ever written out whole.

    Raises:
        EngineError: the weights are not those of the folder's configuration.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    with torch.device("meta"):
        network: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    tensors = {name: aligned(tensor) for name, tensor in load_file(folder / INT8_WEIGHTS).items()}
    if config.get_text_config().tie_word_embeddings:
        _tie(network, tensors)
    linear, embedding = _modules()
    for name, module in list(network.named_modules()):
        scale = tensors.pop(f"{name}{INT8_SCALE}", None)
        if scale is not None:
            kind = embedding if isinstance(module, torch.nn.Embedding) else linear
            bias = tensors.pop(f"{name}.bias", None)
            whole = kind(tensors.pop(f"{name}.weight"), scale, dtype, None if bias is None else bias.to(dtype))
            network.set_submodule(name, whole)
        elif any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            network.set_submodule(name, type(module)(config.get_text_config()))  # rotary angles follow from it
    unknown = network.load_state_dict({k: v.to(dtype) for k, v in tensors.items()}, strict=False, assign=True)
    empty = [n for n, p in network.named_parameters() if p.is_meta]
    if unknown.unexpected_keys or empty:
        raise EngineError(
            f"{folder / INT8_WEIGHTS} is not this model's: {', '.join([*unknown.unexpected_keys, *empty][:3])}"
        )
    if (folder / "generation_config.json").is_file():
        network.generation_config = GenerationConfig.from_pretrained(str(folder), local_files_only=True)
    return network


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor where torch's kernel can read it: in a mapped file it may lie at any byte, and the process dies."""
    return tensor.clone() if tensor.data_ptr() % ALIGNED else tensor


def _tie(network: Any, tensors: dict[str, torch.Tensor]) -> None:
    """The head reads the embedding's own bytes."""
    places = {id(module): name for name, module in network.named_modules()}
    embedding, head = places[id(network.get_input_embeddings())], places[id(network.get_output_embeddings())]
    for part in (".weight", INT8_SCALE):
        if f"{embedding}{part}" in tensors:
            tensors[f"{head}{part}"] = tensors[f"{embedding}{part}"]


def _modules() -> tuple[Any, Any]:
    """The two kinds of layers, made here since torch is loaded only where it is used."""
    import torch

    class Rows(torch.nn.Module):
        """levels: (rows, columns) int8; scale: (rows,) float32. A weight is level * scale of its row."""

        levels: torch.Tensor
        scale: torch.Tensor
        bias: torch.Tensor | None

        def __init__(
            self, levels: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype, bias: torch.Tensor | None
        ) -> None:
            super().__init__()
            self.register_buffer("levels", levels.contiguous(), persistent=False)
            self.register_buffer("scale", scale.to(dtype), persistent=False)
            self.register_buffer("bias", bias, persistent=False)

    class Linear(Rows):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(…, columns) -> (…, rows)."""
            flat = x.reshape(-1, x.shape[-1])
            if len(flat) <= FEW_ROWS and flat.device.type == "cpu" and flat.shape[1] % ALIGNED == 0:
                out = torch._weight_int8pack_mm(flat.contiguous(), self.levels, self.scale)
            else:
                out = torch.nn.functional.linear(flat, self.levels.to(x.dtype)) * self.scale
            if self.bias is not None:
                out = out + self.bias
            return out.view(*x.shape[:-1], -1)

    class Embedding(Rows):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            """(…,) token ids -> (…, columns)."""
            return self.levels[tokens].to(self.scale.dtype) * self.scale[tokens].unsqueeze(-1)

    return Linear, Embedding
