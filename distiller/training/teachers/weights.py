"""An open-weight teacher in the training process: it reads the same tokens and says what it would have said."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from distiller.training.batches import Pass
from distiller.training.outputs import Outputs, answers
from router.errors import TrainingError

PROBE = "Locum: 3.14 + 2 = 5,14?\n\n  naïve Käse 日本語 <b>&amp;</b>\tdef f(x):\n\treturn x"
"""A text on which two tokenizers that differ are not likely to agree."""


class OpenTeacher:
    """The model in a Hugging Face folder; it never learns. It is loaded when it is first asked.

    It answers in the student's own prompt format, whatever it was trained with: what is compared is what both expect
    after the very same tokens.

    Raises:
        TrainingError: there is no model, or its tokenizer is not the student's.
    """

    def __init__(self, folder: str, student: Path) -> None:
        self.folder = Path(folder).expanduser()
        if not (self.folder / "config.json").is_file():
            raise TrainingError(f"the teacher must be a folder with a model in Hugging Face's format; {folder} is none")
        _demand_same_tokenizer(student, self.folder)
        self._loaded: Any = None

    @cached_property
    def config(self) -> Any:
        """The model's configuration; its sizes are read before its weights are."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.folder).get_text_config()

    def outputs(self, part: Pass, layers: tuple[int, ...] = ()) -> Outputs:
        """What it computes at the pass's answer positions; in bfloat16 where the student runs in it."""
        import torch

        with torch.no_grad():
            model = self._model(part)
            return answers(model, part, model.get_output_embeddings().weight, layers)

    def _model(self, part: Pass) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        device = part.tokens.device
        if self._loaded is None:
            self._loaded = AutoModelForCausalLM.from_pretrained(
                self.folder,
                dtype=torch.bfloat16 if torch.is_autocast_enabled(device.type) else torch.float32,
                attn_implementation="eager" if device.type == "cpu" else "sdpa",
            )
            self._loaded.to(device).eval().requires_grad_(False)
        return self._loaded


def _demand_same_tokenizer(student: Path, teacher: Path) -> None:
    from transformers import AutoTokenizer

    ours, theirs = AutoTokenizer.from_pretrained(student), AutoTokenizer.from_pretrained(teacher)
    if not same_vocabulary(ours.get_vocab(), theirs.get_vocab()) or encoded(ours) != encoded(theirs):
        raise differing(f"the student's ({student})", f"the teacher's ({teacher})")


def same_vocabulary(ours: Mapping[str, int], theirs: Mapping[str, int]) -> bool:
    """Whether one holds the other: a few special tokens more are no other tokenizer."""
    few, many = sorted((ours, theirs), key=len)
    return few.items() <= many.items()


def encoded(tokenizer: Any) -> list[int]:
    """The probe's tokens."""
    tokens: list[int] = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    return tokens


def differing(student: str, teacher: str, more: str = "") -> TrainingError:
    """What to say where two tokenizers differ; ``more``: a way out that this teacher has beside the usual ones."""
    return TrainingError(
        f"{student} tokenizer is not {teacher}, so their probabilities are of different tokens. Take a teacher of the "
        f"student's own family, or a method that needs text alone (hard-label, reasoning, confidence){more}"
    )
