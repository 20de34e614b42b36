"""One readable torch loop: a student learns the teacher's answers, resumably.

Hard-label distillation on the teacher's text, loss on the answer alone. How one step is taken is in
``learner``; this is the run around it: what is learnt in which order, progress, checkpoints, the result.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distiller.config import TrainConfig
from distiller.data.dataset import Dataset, read
from distiller.training.batches import Encoded, plan
from distiller.training.checkpoints import Checkpoint, Progress
from distiller.training.learner import Learner
from distiller.training.methods.make import make
from distiller.training.progress import Meter
from router.errors import TrainingError

REPORT = "report.json"
DEV_ROWS = 128
"""Dev rows, at most, that the dev loss is measured on."""


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a training run did. ``seconds`` counts every run of a resumed one; losses are nats per answer token.

    ``left_out`` counts rows longer than ``max_tokens``. ``tokens`` are prompt and answer tokens learnt
    from, a beginning that rows share counted in each. ``dev_loss`` None: there were no dev rows.
    """

    folder: Path
    rows: int
    left_out: int
    steps: int
    tokens: int
    answer_tokens: int
    seconds: float
    tokens_per_second: float
    first_loss: float
    last_loss: float
    dev_loss_before: float | None
    dev_loss: float | None
    precision: str
    device: str
    resumed: bool


def train(config: TrainConfig, student: Path, dataset: Dataset, out: Path) -> TrainReport:
    """Trains the student in the folder ``student`` on the dataset and writes a Hugging Face folder to ``out``.

    A run that was cut off goes on from its last checkpoint, kept beside ``out``, if called again
    with the same arguments, and ends with the same weights.

    Raises:
        TrainingError: no training row fits into ``max_tokens``, or the loss stopped being a number.
    """
    import torch  # noqa: PLC0415  (heavy)
    from transformers import AutoTokenizer  # noqa: PLC0415

    if config.threads:
        torch.set_num_threads(config.threads)
    tokenizer = AutoTokenizer.from_pretrained(student)
    method = make(config, student)
    rows, left_out = method.encode(read(dataset.train), tokenizer, config.max_tokens)
    dev, _ = method.encode((r for r in read(dataset.dev) if r.trainable), tokenizer, config.max_tokens)
    if not rows:
        raise TrainingError(f"no training row of at most {config.max_tokens} tokens ({left_out} longer ones left out)")
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        learner = Learner(config, student, method)
    checkpoint = Checkpoint(
        out.with_name(f"{out.name}.checkpoint"),
        _fingerprint(config, student, dataset),
        seconds=config.checkpoint_seconds,
        steps=config.checkpoint_steps,
    )
    progress = checkpoint.resume(learner.weights, learner.optimizer)
    resumed = progress is not None
    progress = progress or Progress(dev_loss_before=learner.loss(dev[:DEV_ROWS]))
    _run(learner, rows, progress, checkpoint)
    dev_loss = learner.loss(dev[:DEV_ROWS])
    report = TrainReport(
        folder=out,
        rows=len(rows),
        left_out=left_out,
        steps=progress.step,
        tokens=progress.tokens,
        answer_tokens=progress.answer_tokens,
        seconds=progress.seconds,
        tokens_per_second=progress.tokens / max(progress.seconds, 1e-9),
        first_loss=progress.losses[0],
        last_loss=sum(progress.losses[-10:]) / len(progress.losses[-10:]),
        dev_loss_before=progress.dev_loss_before,
        dev_loss=dev_loss,
        precision="bf16" if learner.bf16 else "fp32",
        device=learner.device,
        resumed=resumed,
    )
    _save(learner, tokenizer, report, out)
    checkpoint.remove()
    return report


def _run(learner: Learner, rows: Sequence[Encoded], progress: Progress, checkpoint: Checkpoint) -> None:
    """The loop itself, from where ``progress`` stands to the end of the plan."""
    config = learner.config
    steps = plan(rows, config.epochs, config.batch_size, config.seed)
    with Meter("training", len(steps), done=progress.step) as meter:
        for indices in steps[progress.step :]:
            began = time.monotonic()
            batch = [rows[i] for i in indices]
            rate = config.learning_rate * schedule(progress.step, len(steps), config.warmup_share)
            loss = learner.step(batch, rate, progress.step)
            if not math.isfinite(loss):
                raise TrainingError(f"the loss became {loss} at step {progress.step}; a lower learning rate may help")
            tokens = sum(len(r.tokens) for r in batch)
            progress.step += 1
            progress.tokens += tokens
            progress.answer_tokens += sum(r.answer_tokens for r in batch)
            progress.losses.append(loss)
            progress.seconds += time.monotonic() - began
            meter.show(progress.step, loss, tokens)
            if checkpoint.due(progress.step) and progress.step < len(steps):
                checkpoint.save(progress, learner.weights, learner.optimizer)


def schedule(step: int, steps: int, warmup_share: float) -> float:
    """The learning rate's factor: up linearly over the warm-up, then a half cosine down to a tenth."""
    warmup = math.ceil(warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def _fingerprint(config: TrainConfig, student: Path, dataset: Dataset) -> str:
    """Names the run: what it starts from, what it learns, and how."""
    how = {k: v for k, v in asdict(config).items() if not k.startswith("checkpoint")}
    how["method"] = config.method.model_dump(mode="json")
    weights = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(student.glob("*.safetensors"))]
    what = [how, str(student.resolve()), weights, dataset.sha256]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _save(learner: Learner, tokenizer: Any, report: TrainReport, out: Path) -> None:
    """Writes the folder beside its place first, so that ``out`` is whole or not there."""
    fresh = out.with_name(f"{out.name}.{os.getpid()}")
    learner.finished().save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    (fresh / REPORT).write_text(json.dumps({**asdict(report), "folder": out.name}, indent=2))
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)
