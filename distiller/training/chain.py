"""Progressive: a chain of shrinking students, each taught by the last.

A student far smaller than its teacher learns better from one in between (Mirzadeh et al., "Improved Knowledge
Distillation via Teacher Assistant", 2020). Each is cut from the last by leaving out layers, since what a deep model's
layers do overlaps (Gromov et al., "The Unreasonable Ineffectiveness of the Deeper Layers", 2024), and is healed by
learning what the last one says.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distiller.config import TrainConfig
from distiller.data.dataset import Dataset, scan
from distiller.training.batches import EncodedRow, encode, tensors
from distiller.training.launch import train
from distiller.training.loop import TrainReport, fingerprint, read_report, together
from distiller.training.outputs import answers
from router.engine.template import PromptTemplate
from router.errors import TrainingError
from router.policy.distillation import HardLabelSettings, MethodSettings, ProgressiveSettings, SoftLabelSettings

if TYPE_CHECKING:
    from torch import Tensor

MEASURED_ROWS = 64
"""Rows that the layers' influence is measured on."""


def chained(config: TrainConfig, student: Path, dataset: Dataset, out: Path) -> TrainReport:
    """Trains as ``train`` does, down the chain that ``config.method``, of ProgressiveSettings, names.

    A first student as deep as the one given is that one, trained with hard labels; deeper ones are passed over, so that
    the next round goes on with what the last one made. The report counts the chain's trainings together. A chain that
    was cut off goes on in the training that it was in, if called again with the same arguments.

    Raises:
        TrainingError: as ``train``; or the student has fewer layers than any of the chain.
    """
    settings = config.method
    assert isinstance(settings, ProgressiveSettings)
    chain = _chain(settings, depth(student))
    place = out.with_name(f"{out.name}.chain-{fingerprint(config, student, dataset, config.processes)[:12]}")
    place.mkdir(parents=True, exist_ok=True)
    last, took = student, []
    for n, layers in enumerate(chain):
        final = n == len(chain) - 1
        link = out if final else place / f"{layers}-layers"
        start: Path = last
        how: MethodSettings = HardLabelSettings()
        if layers < depth(last):
            start, how = place / f"{layers}-layers.cut", _taught(settings, last)
            if not start.exists():
                shrink(last, start, _kept(settings, last, layers, config, dataset))
        again = not final and link.exists()
        took.append(read_report(link) if again else train(replace(config, method=how), start, dataset, link))
        last = link
    shutil.rmtree(place, ignore_errors=True)
    return together(took, out)


def depth(folder: Path) -> int:
    """How many layers the model in the folder has."""
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(folder).get_text_config().num_hidden_layers)


def shrink(folder: Path, out: Path, keep: Sequence[int]) -> None:
    """Writes the model of ``folder`` with these of its layers, counted from 0, to ``out``: whole or not at all."""
    from torch.nn import ModuleList
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    decoder = model.get_decoder()
    decoder.layers = ModuleList([decoder.layers[i] for i in keep])
    config = model.config.get_text_config()
    config.num_hidden_layers = len(keep)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in keep]
    fresh = out.with_name(f"{out.name}.{os.getpid()}")
    model.save_pretrained(fresh)
    AutoTokenizer.from_pretrained(folder).save_pretrained(fresh)
    fresh.rename(out)


def even(layers: int, of: int) -> list[int]:
    """So many of the layers, the first and the last among them, the others at even distances."""
    return [0] if layers == 1 else [round(i * (of - 1) / (layers - 1)) for i in range(layers)]


def influence(folder: Path, rows: Sequence[EncodedRow]) -> list[float]:
    """How much each layer changes what passes through it: 1 less the mean cosine of its input and output.

    Block influence, of Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect",
    2024, at the rows' answer positions.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    layers = model.get_decoder().layers
    alike, positions = [0.0] * len(layers), 0
    for row in rows:
        part = tensors([row], "cpu")
        hooks = [layer.register_forward_hook(_adds_cosine(alike, i, part.at)) for i, layer in enumerate(layers)]
        with torch.no_grad():
            answers(model, part, model.get_output_embeddings().weight)
        for hook in hooks:
            hook.remove()
        positions += len(part.at)
    return [1 - cosine / max(positions, 1) for cosine in alike]


def _adds_cosine(alike: list[float], layer: int, at: Tensor) -> Callable[..., None]:
    """A hook that adds to the layer's sum how alike its input and output are at the positions."""

    def hook(module: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        from torch.nn.functional import cosine_similarity

        left = output[0] if isinstance(output, tuple) else output
        before, after = (states.flatten(0, 1)[at] for states in (inputs[0], left))  # (positions, width)
        alike[layer] += float(cosine_similarity(before, after, dim=-1).sum())

    return hook


def _kept(settings: ProgressiveSettings, folder: Path, layers: int, config: TrainConfig, dataset: Dataset) -> list[int]:
    """Which of the model's layers the next student keeps, in their order."""
    from transformers import AutoTokenizer

    if settings.keep == "even":
        return even(layers, depth(folder))
    rows = islice(scan(dataset.train), MEASURED_ROWS)
    encoded, _ = encode(rows, PromptTemplate(AutoTokenizer.from_pretrained(folder)), config.max_tokens)
    changes = influence(folder, encoded)
    return sorted(sorted(range(len(changes)), key=lambda i: -changes[i])[:layers])


def _taught(settings: ProgressiveSettings, teacher: Path) -> SoftLabelSettings:
    same = settings.model_dump(include={"divergence", "mixed", "temperature", "mix"})
    return SoftLabelSettings(teacher=str(teacher), **same)


def _chain(settings: ProgressiveSettings, given: int) -> tuple[int, ...]:
    """The students' depths, less what a student that is down the chain already has behind it."""
    if chain := tuple(layers for layers in settings.layers if layers <= given):
        return chain
    raise TrainingError(f"the student has {given} layers, fewer than any of the chain: {settings.layers}")
