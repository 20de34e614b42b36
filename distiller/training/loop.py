"""One readable torch loop over accelerate: a student learns from its teacher, resumably.

What one pass minimises is the method's; how one step is taken is in ``learner``. This is the run around it: what is
learnt in which order, progress, checkpoints, early stop, the result.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from distiller.config import TrainConfig
from distiller.data.dataset import Dataset, scan
from distiller.data.rows import Skip
from distiller.training.batches import EncodedRow, plan
from distiller.training.checkpoints import Checkpoint, RunState
from distiller.training.learner import Learner
from distiller.training.methods.factory import make
from distiller.training.place import ProcessPlace
from distiller.training.progress import Meter, Tracking, plot
from router.engine.template import PromptTemplate
from router.errors import TrainingError

REPORT, PLOT = "report.json", "loss.png"
DEV_ROWS = 128
"""Dev rows, at most, that the dev loss is measured on."""


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a training run did. ``seconds`` counts every run of a resumed one; losses are nats per answer token.

    ``left_out`` counts rows that were not trained on, by reason (``distiller.data.rows.Skip``). ``steps`` were taken,
    fewer than planned where the run ``stopped_early``; the weights are those after ``best_step`` where the run kept its
    best, else the last. ``tokens`` are prompt and answer tokens learnt from, a beginning that rows share counted in
    each. ``dev_loss`` is that of the weights written; None: there were no dev rows, or the weights are the mean of
    several runs'.
    """

    folder: Path
    rows: int
    left_out: dict[str, int]
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
    processes: int = 1
    stopped_early: bool = False
    best_step: int | None = None


def read_report(out: Path) -> TrainReport:
    """The report of the run that wrote the folder ``out``."""
    found = json.loads((out / REPORT).read_bytes())
    if isinstance(left_out := found["left_out"], int):  # an older Locum's, which knew one reason
        found["left_out"] = {Skip.TOO_LONG.value: left_out} if left_out else {}
    return TrainReport(**{k: found[k] for k in TrainReport.__slots__ if k in found} | {"folder": out})


def together(took: Sequence[TrainReport], out: Path, **other: Any) -> TrainReport:
    """One report of the trainings that the student in ``out`` is from, written there: the last one's with the work of
    all, and with what else is given."""
    work: dict[str, Any] = {
        name: sum(getattr(report, name) for report in took) for name in ("steps", "tokens", "answer_tokens", "seconds")
    }
    work["tokens_per_second"] = work["tokens"] / max(work["seconds"], 1e-9)
    path = out / REPORT
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "folder": out.name, **work, **other}, indent=2))
    return read_report(out)


def run(config: TrainConfig, student: Path, dataset: Dataset, out: Path) -> TrainReport:
    """``train`` in this process, which may be one of several that all call it; the first of them writes."""
    import torch
    from transformers import AutoTokenizer

    if config.threads:
        torch.set_num_threads(config.threads)
    place = ProcessPlace(config.device, config.track, str(out.with_name(f"{out.name}.tracking")))
    config = replace(config, device=place.device)
    tokenizer, method = AutoTokenizer.from_pretrained(student), make(config, student)
    prompts = PromptTemplate(tokenizer)
    tokenizer.chat_template = prompts.template  # kept with the student: whoever serves it asks it as it learnt
    rows, left_out = method.encode(scan(dataset.train), prompts, config.max_tokens)
    dev, _ = method.encode((r for r in scan(dataset.dev) if r.trainable), prompts, config.max_tokens)
    if not rows:
        why = ", ".join(f"{n} {reason}" for reason, n in left_out.items())
        raise TrainingError(f"no training row of at most {config.max_tokens} tokens; left out: {why or 'none'}")
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        learner = Learner(config, student, method, place, tokens=config.epochs * sum(len(r.tokens) for r in rows))
        torch.manual_seed(config.seed + place.rank)  # what a method draws for its rows, each process draws for its own
        loop = _Run(learner, rows, dev[:DEV_ROWS], out, fingerprint(config, student, dataset, place.processes))
        loop.go()
    report = loop.report(out, left_out)
    _save(learner, tokenizer, report, loop.progress, out)
    loop.checkpoint.remove()
    return report


class _Run:
    """The loop, from where its checkpoint stands to the end of the plan."""

    def __init__(
        self, learner: Learner, rows: Sequence[EncodedRow], dev: Sequence[EncodedRow], out: Path, fingerprint: str
    ) -> None:
        config = self.config = learner.config
        self.learner, self.rows, self.dev, self.name = learner, rows, dev, out.name
        folder = out.with_name(f"{out.name}.checkpoint")
        self.checkpoint = Checkpoint(
            folder, fingerprint, config.checkpoint_seconds, config.checkpoint_steps, learner.place
        )
        resumed = self.checkpoint.resume(learner.learning, learner.optimizer)
        self.resumed = resumed is not None
        if resumed is not None:
            learner.renew()
            learner.tokens_per_pass = resumed.tokens_per_pass
        self.steps = plan(rows, config.epochs, config.batch_size, config.seed, by_length=not learner.packing)
        learner.expect([[rows[i] for i in step] for step in self.steps])
        self.progress = resumed or RunState(dev_loss_before=learner.loss(dev))
        self.measured = measured_after(len(self.steps), config.evaluations) if config.patience and dev else frozenset()
        self.stopped_early = self._stop()

    def go(self) -> None:
        """Takes the steps that are left."""
        progress, place = self.progress, self.learner.place
        with (
            Meter(f"training {self.name}", len(self.steps), done=progress.step, silent=not place.first) as meter,
            Tracking(place, self.config) as tracking,
        ):
            if self.measured:
                meter.measured(progress.dev_loss_before)
            while progress.step < len(self.steps) and not self.stopped_early:
                began = time.monotonic()
                tokens, rate = self._step()
                dev_loss = self._measure()
                took = time.monotonic() - began
                progress.seconds += took
                figures = {"loss": progress.losses[-1], "learning_rate": rate, "tokens_per_second": tokens / took}
                if dev_loss is not None:
                    meter.measured(dev_loss)
                    figures["dev_loss"] = dev_loss
                meter.show(progress.step, progress.losses[-1], tokens)
                tracking.tell(progress.step, figures)
                if progress.step < len(self.steps) and self.checkpoint.due(progress.step):
                    progress.tokens_per_pass = self.learner.tokens_per_pass
                    self.checkpoint.save(progress, self.learner.learning, self.learner.optimizer)
        if progress.dev_losses:
            self.checkpoint.take_best(self.learner.learning)
            self.learner.renew()

    def _step(self) -> tuple[int, float]:
        """One optimiser step; returns its tokens and its learning rate."""
        config, progress = self.config, self.progress
        batch = [self.rows[i] for i in self.steps[progress.step]]
        rate = config.learning_rate * schedule(progress.step, len(self.steps), config.warmup_share)
        loss = self.learner.step(batch, rate, progress.step)
        if not math.isfinite(loss):
            raise TrainingError(f"the loss became {loss} at step {progress.step}; a lower learning rate may help")
        tokens = sum(len(r.tokens) for r in batch)
        progress.step += 1
        progress.tokens += tokens
        progress.answer_tokens += sum(r.answer_tokens for r in batch)
        progress.losses.append(loss)
        return tokens, rate

    def _measure(self) -> float | None:
        """The dev loss, where it is due; the best one's weights are kept, and too many worse ones end the run."""
        if self.progress.step not in self.measured:
            return None
        loss = self.learner.loss(self.dev)
        assert loss is not None
        self.progress.dev_losses[self.progress.step] = loss
        if no_better_for(list(self.progress.dev_losses.values())) == 0:
            self.checkpoint.keep_best(self.learner.learning)
        self.stopped_early = self._stop()
        return loss

    def _stop(self) -> bool:
        worse = no_better_for(list(self.progress.dev_losses.values()))
        return 0 < self.config.patience <= worse and self.progress.step < len(self.steps)

    def report(self, out: Path, left_out: Mapping[Skip, int]) -> TrainReport:
        progress, learner = self.progress, self.learner
        best = min(progress.dev_losses, key=progress.dev_losses.__getitem__, default=None)
        return TrainReport(
            folder=out,
            rows=len(self.rows),
            left_out={reason.value: n for reason, n in sorted(left_out.items())},
            steps=progress.step,
            tokens=progress.tokens,
            answer_tokens=progress.answer_tokens,
            seconds=progress.seconds,
            tokens_per_second=progress.tokens / max(progress.seconds, 1e-9),
            first_loss=progress.losses[0],
            last_loss=sum(progress.losses[-10:]) / len(progress.losses[-10:]),
            dev_loss_before=progress.dev_loss_before,
            dev_loss=learner.loss(self.dev) if best is None else progress.dev_losses[best],
            precision="bf16" if learner.bf16 else "fp32",
            device=learner.device,
            resumed=self.resumed,
            processes=learner.place.processes,
            stopped_early=self.stopped_early,
            best_step=best,
        )


def fingerprint(config: TrainConfig, student: Path, dataset: Dataset, processes: int) -> str:
    """Names the run: what it starts from, what it learns, how, and by how many."""
    plain = replace(config, launcher="none", processes=processes, track=None)
    plain = replace(plain, checkpoint_seconds=0, checkpoint_steps=None)
    how = TypeAdapter(TrainConfig).dump_python(plain, mode="json")
    weights = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(student.glob("*.safetensors"))]
    what = [how, str(student.resolve()), weights, dataset.sha256]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _save(learner: Learner, tokenizer: Any, report: TrainReport, progress: RunState, out: Path) -> None:
    """Writes the folder beside its place first, so that ``out`` is whole or not there."""
    weights = learner.whole_weights()
    if learner.place.first:
        fresh = out.with_name(f"{out.name}.{os.getpid()}")
        learner.finished(weights).save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        curve = {"losses": progress.losses, "dev_losses": progress.dev_losses}
        (fresh / REPORT).write_text(json.dumps({**asdict(report), "folder": out.name, **curve}, indent=2))
        plot(progress, fresh / PLOT)
        shutil.rmtree(out, ignore_errors=True)
        fresh.rename(out)
    learner.place.wait()


def schedule(step: int, steps: int, warmup_share: float) -> float:
    """The learning rate's factor: up linearly over the warm-up, then a half cosine down to a tenth."""
    warmup = math.ceil(warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def measured_after(steps: int, evaluations: int) -> frozenset[int]:
    """The steps after which the dev loss is measured: ``evaluations`` of them, evenly spread, the last among them."""
    return frozenset(math.ceil(steps * (i + 1) / evaluations) for i in range(min(evaluations, steps)))


def no_better_for(losses: Sequence[float]) -> int:
    """How many measurements there were since the best one."""
    return len(losses) - 1 - min(range(len(losses)), key=losses.__getitem__) if losses else 0
