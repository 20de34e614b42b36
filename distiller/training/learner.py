"""The student while it learns: what of it moves, in which precision, and one optimiser step.

The optimiser moves float32 weights; where the hardware multiplies bfloat16, the passes run in it
(autocast), so what is trained is what will be served. A base student's weights lie exactly on
bfloat16's grid, where a small update rounds back to nothing and the first steps would be lost: each
weight therefore starts at a random point of the interval that rounds to it. The student is
unchanged by that, and small updates show in the share of weights that they tip over.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distiller.config import TrainConfig
from distiller.training.batches import Encoded, Pass, passes
from distiller.training.forward import answers
from distiller.training.methods.base import Method
from distiller.training.rounding import spread_within_rounding

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


class Learner:
    """The student while it learns: the model, what of it moves, and one optimiser step.

    ``weights`` are the moving ones by name, float32. Draws from torch's generator while being made, never later.
    """

    def __init__(self, config: TrainConfig, student: Path, method: Method) -> None:
        import torch  # noqa: PLC0415
        from transformers import AutoModelForCausalLM  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415

        logging.disable_progress_bar()  # the round shows its own
        self.config, self.method = config, method
        self.device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.bf16 = config.precision == "bf16" or (config.precision == "auto" and has_bf16(self.device))
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            student,
            dtype=torch.float32,
            # torch's fused attention on a CPU has a slow backward pass: written out, a step takes a third less.
            attn_implementation="eager" if self.device == "cpu" else "sdpa",
        )
        self.model.to(self.device).train()
        self._whole: Any = _adapted(self.model, config) if config.tuning == "lora" else self.model
        if config.tuning == "full":
            _freeze(self.model, config)
        self.weights: dict[str, Tensor] = {n: p for n, p in self._whole.named_parameters() if p.requires_grad}
        self._learning = [*self.weights.values(), *method.parameters.values()]
        if self.bf16 and config.tuning == "full":
            for name, weight in self.weights.items():
                if weight.ndim == 2 and name not in _embeddings(self.model):
                    spread_within_rounding(weight)
        self.optimizer: Optimizer = torch.optim.AdamW(
            [
                {"params": [w for w in self._learning if w.ndim >= 2], "weight_decay": config.weight_decay},
                {"params": [w for w in self._learning if w.ndim < 2], "weight_decay": 0.0},
            ],
            fused=True,
        )
        output = self.model.get_output_embeddings().weight
        self._output = output if output.requires_grad else output.detach().to(torch.bfloat16 if self.bf16 else None)

    def step(self, rows: Sequence[Encoded], learning_rate: float, step: int) -> float:
        """Optimiser step number ``step`` over these rows; returns the mean loss in nats per answer token."""
        import torch  # noqa: PLC0415

        with self._autocast():
            rows = self.method.rows(rows, step, self.model)
        total = sum(r.weight * r.answer_tokens for r in rows)
        loss = 0.0
        for part in passes(rows, self.config.tokens_per_pass, self.device):
            mean = self._summed(part) / total
            mean.backward()  # type: ignore[no-untyped-call]
            loss += mean.item()
        torch.nn.utils.clip_grad_norm_(self._learning, self.config.clip_norm, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def loss(self, rows: Sequence[Encoded]) -> float | None:
        """Mean loss over rows it does not learn from; None without rows."""
        import torch  # noqa: PLC0415

        if not rows:
            return None
        with torch.no_grad():
            summed = sum(self._summed(p).item() for p in passes(rows, self.config.tokens_per_pass, self.device))
        return summed / sum(r.weight * r.answer_tokens for r in rows)

    def _summed(self, part: Pass) -> Tensor:
        """The pass's weighted loss, summed over its answer tokens."""
        with self._autocast():
            return self.method.loss(answers(self.model, part, self._output, self.method.layers), part)

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch  # noqa: PLC0415

        if not self.bf16:
            return nullcontext()
        return torch.autocast(self.device.split(":", maxsplit=1)[0], dtype=torch.bfloat16)

    def finished(self) -> Any:
        """The trained model in bfloat16, adapters merged in."""
        import torch  # noqa: PLC0415

        model = self._whole.merge_and_unload() if self.config.tuning == "lora" else self.model
        if not (self.bf16 and self.config.tuning == "full"):
            with torch.random.fork_rng():
                torch.manual_seed(self.config.seed)
                for weight in model.parameters():
                    if weight.ndim == 2:
                        spread_within_rounding(weight.data)
        return model.to(torch.bfloat16)


def has_bf16(device: str) -> bool:
    """Whether the hardware multiplies bfloat16 natively; emulated it would be slower than float32."""
    import torch  # noqa: PLC0415

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


def _embeddings(model: Any) -> set[str]:
    ours = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    return {n for n, p in model.named_parameters(remove_duplicate=False) if id(p) in ours}


def _adapted(model: Any, config: TrainConfig) -> Any:
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415

    return get_peft_model(
        model, LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules="all-linear")
    )
