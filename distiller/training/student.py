"""The student's weights: which of them move, in which numbers, and how a trained one is put together again.

The optimiser moves float32 weights. Where passes run in bfloat16, the model holds a bfloat16 copy of them, made once a
step: what is trained is what will be served, and nothing is cast within a pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distiller.config import TrainConfig

if TYPE_CHECKING:
    from torch import Tensor

ADAPTED_FROM = 1_000_000_000
"""Weights from which on adapters learn, unless the configuration says otherwise."""

SIGNIFICANT_BITS = 8
"""Of a bfloat16, the implicit one included."""


@dataclass(frozen=True, slots=True)
class Student:
    """A student that can learn. moving: its weights that do, by name. adapted: peft's view of it, with adapters."""

    model: Any
    moving: dict[str, Any]
    adapted: Any | None


def tuned(config: TrainConfig, folder: Path) -> TrainConfig:
    """The configuration with what is to learn in the student in this folder, all weights or adapters."""
    from safetensors import safe_open

    if config.tuning != "auto":
        return config
    weights = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as held:
            weights += sum(prod(held.get_slice(name).get_shape()) for name in held.keys())  # noqa: SIM118
    return replace(config, tuning="lora" if weights >= ADAPTED_FROM else "full")


def load(config: TrainConfig, folder: Path, device: str, narrow: bool = False) -> Student:
    """The student in the folder, in float32, adapters in it if they are what learns.

    Adapters are drawn from torch's generator. ``narrow``: what only adapters change is not made wide first.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # a run shows its own
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16 if narrow and config.tuning == "lora" else torch.float32,
        # torch's fused attention on a CPU has a slow backward pass, where ours does not suit either
        attn_implementation="eager" if device == "cpu" else "sdpa",
    )
    model.to(device).train()
    adapted = _adapted(model, config) if config.tuning == "lora" else None
    if adapted is None:
        _freeze(model, config)
    return Student(model, {n: p for n, p in model.named_parameters() if p.requires_grad}, adapted)


def in_bfloat16(student: Student) -> dict[str, Tensor]:
    """Makes the model one of bfloat16; returns the float32 weights behind what moves, by name.

    Each pass's gradients are added to theirs, in float32, and forgotten.
    """
    import torch

    behind: dict[str, Tensor] = {}
    for parameter in student.model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    for name, parameter in student.moving.items():
        weight = behind[name] = parameter.data
        weight.grad = torch.zeros_like(weight)
        parameter.data = weight.to(torch.bfloat16)

        def keep(rounded: Tensor, weight: Tensor = weight) -> None:
            assert weight.grad is not None
            weight.grad += rounded.grad  # type: ignore[arg-type]
            rounded.grad = None

        parameter.register_post_accumulate_grad_hook(keep)
    return behind


def finished(config: TrainConfig, folder: Path, weights: dict[str, Tensor], rounds: bool) -> Any:
    """The student in the folder with these weights in place of what moved, in bfloat16, adapters merged in.

    ``rounds``: round at random, for weights that did not start at a random point of their rounding interval.
    """
    import torch

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(config.seed)
        student = load(config, folder, "cpu")
        for name, weight in student.moving.items():
            weight.copy_(weights[name])
        model = student.adapted.merge_and_unload() if student.adapted is not None else student.model
        if rounds:
            for weight in model.parameters():
                if weight.ndim == 2:
                    spread_within_rounding(weight)
    return model.to(torch.bfloat16)


def spread(student: Student) -> None:
    """Starts each moving weight at a random point of the interval that rounds to it; embeddings stay."""
    ours = {id(student.model.get_input_embeddings().weight), id(student.model.get_output_embeddings().weight)}
    for weight in student.moving.values():
        if weight.ndim == 2 and id(weight) not in ours:
            spread_within_rounding(weight)


def has_bf16(device: str) -> bool:
    """Whether the hardware multiplies bfloat16 natively; emulated it would be slower than float32."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if device == "cpu" and cpuinfo.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _freeze(model: Any, config: TrainConfig) -> None:
    if config.freeze_embeddings:
        model.get_input_embeddings().weight.requires_grad_(False)
        model.get_output_embeddings().weight.requires_grad_(False)
    for layer in model.get_decoder().layers[: config.freeze_layers]:
        layer.requires_grad_(False)


def _adapted(model: Any, config: TrainConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(
        model, LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules="all-linear")
    )


def spread_within_rounding(weight: Tensor) -> None:
    """Adds, in place, uniform noise of up to half of bfloat16's step at each value (float32, any shape).

    A value on the grid still rounds to itself; one between two rounds to either, in proportion to
    its nearness (Gupta et al., "Deep learning with limited numerical precision", 2015).
    """
    import torch

    with torch.no_grad():
        mantissa, exponent = torch.frexp(weight)
        half = torch.ldexp(torch.ones_like(weight), exponent - SIGNIFICANT_BITS - 1)
        half[mantissa.abs() == 0.5] /= 2  # below a power of two the grid is finer
        half[weight == 0] = 0
        weight += (2 * torch.rand_like(weight) - 1) * half * 0.998
