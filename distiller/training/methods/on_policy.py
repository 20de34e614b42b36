"""On-policy: the student answers itself, and the teacher says what it would have said at each of those tokens.

Generalised knowledge distillation (Agarwal et al., "On-Policy Distillation of Language Models: Learning from
Self-Generated Mistakes", 2024): a student that only ever reads its teacher's text has never seen its own mistakes when
it makes them. No token is a label here: the loss is the divergence alone, on the teacher's answers and on the
student's own, of which there is a share (their λ).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distiller.training.batches import EncodedRow, Pass
from distiller.training.losses.divergences import Divergence
from distiller.training.methods.base import Method
from distiller.training.methods.soft import soft_label
from distiller.training.teachers.weights import OpenTeacher

if TYPE_CHECKING:
    from torch import Tensor

    from distiller.training.outputs import Outputs


@dataclass(frozen=True)
class OnPolicy(Method):
    """The divergence from an open-weight teacher, where ``share`` of the rows are answered by the student.

    ``max_tokens``: prompt and answer together, as everywhere; ``max_new_tokens`` are drawn at most, at
    ``temperature``. Seed and step alone say which rows and which tokens are drawn, so a resumed run draws the same.
    ``end``: the token that ends an answer.
    """

    teacher: OpenTeacher
    divergence: Divergence
    share: float
    temperature: float
    max_new_tokens: int
    max_tokens: int
    seed: int
    end: int

    def rows(self, rows: Sequence[EncodedRow], step: int, model: Any) -> Sequence[EncodedRow]:
        drawn = random.Random(f"{self.seed} {step}")
        chosen = [i for i in range(len(rows)) if drawn.random() < self.share]
        answers = self._answered([rows[i] for i in chosen], drawn.getrandbits(63), model) if chosen else []
        fresh = dict(zip(chosen, answers, strict=True))
        return [fresh.get(i, row) for i, row in enumerate(rows)]

    def loss(self, outputs: Outputs, part: Pass) -> Tensor:
        teacher = self.teacher.outputs(part)
        return soft_label(outputs, teacher, part.targets, part.weights, divergence=self.divergence, mix=1.0)

    def _answered(self, rows: Sequence[EncodedRow], seed: int, model: Any) -> list[EncodedRow]:
        """The rows with the student's answers in the place of the teacher's."""
        import torch

        longest, device = max(r.start for r in rows), model.device
        prompts = torch.full((len(rows), longest), self.end)  # (rows, length), padded on the left
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for i, row in enumerate(rows):
            prompts[i, longest - row.start :] = torch.tensor(row.tokens[: row.start])
            mask[i, longest - row.start :] = 1
        devices = [device] if device.type == "cuda" else []
        learning = model.training
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            said = model.generate(
                prompts.to(device),
                attention_mask=mask.to(device),
                do_sample=True,
                temperature=self.temperature,
                top_k=0,
                top_p=1.0,
                max_new_tokens=max(1, min(self.max_new_tokens, self.max_tokens - longest)),
                eos_token_id=self.end,
                pad_token_id=self.end,
            )[:, longest:].tolist()
        model.train(learning)
        return [self._ended(row, tokens) for row, tokens in zip(rows, said, strict=True)]

    def _ended(self, row: EncodedRow, said: list[int]) -> EncodedRow:
        """The row with what was said up to and with its end; one that was cut off has none."""
        until = said.index(self.end) + 1 if self.end in said else len(said)
        return replace(row, tokens=(*row.tokens[: row.start], *said[:until]), known=None)
