"""The trained student with eight bits a weight, for the embedded engine (``router.engine.int8`` says why so)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from router.contracts.bundles import INT8_SCALE, INT8_WEIGHTS

if TYPE_CHECKING:
    import torch


def to_int8(hf_folder: Path, out: Path) -> Path:
    """Writes the Hugging Face folder once more with eight-bit matrices; ``out`` appears whole or not at all.

    Tokenizer and configuration go with it, so that it serves alone.
    """
    from safetensors.torch import load_file, save_file

    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(hf_folder.glob("*.safetensors")):
        tensors.update(_in_eight_bits(load_file(path)))
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{out.name}.", dir=out.parent))
    try:
        save_file(tensors, fresh / INT8_WEIGHTS)
        for path in hf_folder.iterdir():
            if path.is_file() and ".safetensors" not in path.name:
                shutil.copyfile(path, fresh / path.name)
        fresh.chmod(0o700)
        if out.is_dir():
            shutil.rmtree(out)
        fresh.replace(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return out


def quantised(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, columns) weights -> levels from -127 to 127 (int8) and each row's scale (rows,) in float32.

    Symmetric and by row ("vector-wise", T. Dettmers et al., "LLM.int8()", 2022, section 2.1).
    """
    import torch

    weight = weight.float()
    scale = weight.abs().amax(dim=1) / 127
    levels = torch.round(weight / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None])
    return levels.clamp_(-127, 127).to(torch.int8), scale


def _in_eight_bits(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Matrices with their scales; norms and biases are small and stay as they are."""
    out: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        matrix = name.removesuffix(".weight")
        if tensor.dim() == 2 and tensor.is_floating_point() and matrix != name:
            out[name], out[f"{matrix}{INT8_SCALE}"] = quantised(tensor)
        else:
            out[name] = tensor.contiguous()
    return out
