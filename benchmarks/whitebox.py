"""What a teacher with the same tokens says of texts, and how near a student is to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distiller.data.rows import DatasetRow
from distiller.training.batches import EncodedRow, encode, passes, tensors
from distiller.training.outputs import answers
from distiller.training.teachers.recording import spellings
from router.contracts.logprobs import Position, packed
from router.engine.template import PromptTemplate

CHUNK = 256


def loaded(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def nearness(student: Path, teacher: Path, rows: Sequence[EncodedRow], tokens_per_pass: int = 4096) -> dict[str, float]:
    """Over the answers' tokens: the student's ``perplexity``, the share of positions at which its likeliest token is
    the teacher's (``agreement``), and ``kl``, the mean of KL(teacher || student) in nats."""
    import torch
    from torch.nn.functional import cross_entropy, kl_div, log_softmax

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


def likeliest(teacher: Path, rows: Sequence[DatasetRow], top: int) -> list[str]:
    """The teacher's ``top`` likeliest tokens at each token of the rows' answers, packed as records keep them."""
    import torch
    from transformers import AutoTokenizer

    model, tokenizer = loaded(teacher), AutoTokenizer.from_pretrained(teacher)
    spelt = spellings(tokenizer)

    def told(row: EncodedRow) -> str:
        part = tensors([row], "cpu")
        with torch.no_grad():
            outputs = answers(model, part, model.get_output_embeddings().weight)
            log_p = torch.log_softmax(outputs.hidden @ outputs.output_weight.T, dim=-1)  # (positions, vocabulary)
        best, emitted = log_p.topk(top), part.targets.tolist()
        return packed(
            Position(spelt[t], float(log_p[i, t]), tuple((spelt[o], lp) for o, lp in zip(others, lps, strict=True)))
            for i, (t, others, lps) in enumerate(zip(emitted, best.indices.tolist(), best.values.tolist(), strict=True))
        )

    return [told(row) for row in encode(rows, PromptTemplate(tokenizer), 1 << 20)[0]]
