"""How near a student is to a teacher with the same tokens, on text that neither was trained on here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distiller.training.batches import Encoded, passes
from distiller.training.forward import answers

CHUNK = 256


def loaded(folder: Path) -> Any:
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def nearness(student: Path, teacher: Path, rows: Sequence[Encoded], tokens_per_pass: int = 4096) -> dict[str, float]:
    """Over the answers' tokens: the student's ``perplexity``, the share of positions at which its likeliest token is
    the teacher's (``agreement``), and ``kl``, the mean of KL(teacher || student) in nats."""
    import torch  # noqa: PLC0415
    from torch.nn.functional import cross_entropy, kl_div, log_softmax  # noqa: PLC0415

    models = [loaded(student), loaded(teacher)]
    nats = kl = alike = count = 0.0
    with torch.no_grad():
        for part in passes(rows, tokens_per_pass, "cpu"):
            outputs = [answers(m, part, m.get_output_embeddings().weight) for m in models]
            for at in range(0, len(part.targets), CHUNK):
                piece = slice(at, at + CHUNK)
                ours, theirs = (log_softmax(o.hidden[piece] @ o.output_weight.T, dim=-1) for o in outputs)
                nats += cross_entropy(ours, part.targets[piece], reduction="sum").item()
                kl += kl_div(ours, theirs, log_target=True, reduction="sum").item()
                alike += (ours.argmax(-1) == theirs.argmax(-1)).sum().item()
            count += len(part.targets)
    return {
        "perplexity": round(math.exp(nats / count), 3),
        "agreement": round(alike / count, 4),
        "kl": round(kl / count, 4),
    }
