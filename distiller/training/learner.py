"""The student while it learns: what of it moves, in which precision, and one optimiser step.

A base student's weights lie exactly on bfloat16's grid, where a small update rounds back to nothing and
the first steps would be lost: each weight therefore starts at a random point of the interval that rounds
to it. The student is unchanged by that, and small updates show in the share of weights that they tip over.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from distiller.config import TrainConfig
from distiller.training import attention, lean_backward, memory
from distiller.training.batches import EncodedRow, Pass, idle, passes
from distiller.training.capture import MOST_WEIGHTS, RecordedPass
from distiller.training.methods.base import Method
from distiller.training.outputs import answers
from distiller.training.place import ProcessPlace, forget_cached, halved, out_of_memory
from distiller.training.shapes import PassShape, cut, filled, fitting
from distiller.training.shapes import idle as idle_filled
from distiller.training.sharding import blocks, clip, gathered, sharded, whole
from distiller.training.student import finished, has_bf16, in_bfloat16, load, spread, tuned
from router.errors import TrainingError
from router.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

log = structlog.get_logger(__name__)

TOKENS_PER_PASS = {"cpu": 2048, "cuda": 8192}
"""What fills the hardware: more only takes memory. By itself a GPU takes what its memory has room for."""


COMPILED_FROM = 1e15
"""Tokens times weights of a run, from which on a GPU has won back by compiled layers what it takes to compile them."""


class Learner:
    """The student while it learns: the model, what of it moves, and one optimiser step.

    ``weights`` are the moving ones by name, float32; ``learning`` are these and the method's own.
    ``tokens_per_pass`` is halved where the memory does not suffice. Draws from torch's generator while
    being made, and later only if the method does.
    """

    def __init__(
        self,
        config: TrainConfig,
        student: Path,
        method: Method,
        place: ProcessPlace | None = None,
        tokens: float = math.inf,
    ) -> None:
        """``tokens``: that the whole run will learn from, as far as that is known."""
        self.config, self.method, self._folder = tuned(config, student), method, student
        config = self.config
        self.place = place or ProcessPlace(config.device)
        self.device = self.place.device
        self.bf16 = config.precision == "bf16" or (config.precision == "auto" and has_bf16(self.device))
        kind = self.device.split(":", maxsplit=1)[0]
        self.tokens_per_pass = config.tokens_per_pass or TOKENS_PER_PASS.get(kind, TOKENS_PER_PASS["cuda"])
        loaded = load(config, student, self.device, narrow=self.bf16 and kind == "cuda")
        self.model = loaded.model
        much = tokens * sum(p.numel() for p in self.model.parameters()) >= COMPILED_FROM
        self._compiled = kind == "cuda" and much if config.compile is None else config.compile
        if not self._compiled:  # compiling spares as much by itself
            lean_backward.use(self.model)
        if self.bf16 and config.tuning == "full":
            spread(loaded)
        self._within: Any = lambda work: work()
        if self.place.processes > 1:
            self._within = sharded(self.model, self.place.processes, self.device, self.bf16)
            self.weights: dict[str, Tensor] = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        else:
            self.weights = in_bfloat16(loaded) if self.bf16 else loaded.moving
        self._rounded = list(loaded.moving.values()) if self.bf16 and self.place.processes == 1 else []
        for own in method.parameters.values():
            own.data = own.data.to(self.device)
        self.learning = {**self.weights, **{f"method.{n}": p for n, p in method.parameters.items()}}
        self.optimizer = _optimizer(self.learning, config)
        self.shape: PassShape | None = None
        self._expected: Sequence[Sequence[EncodedRow]] = ()
        self._prepare(kind)

    def _prepare(self, kind: str) -> None:
        """What is done for speed or memory, as the configuration or else the device asks for it."""
        config = self.config
        ours = attention.suits(self.model)
        if ours:
            attention.use(self.model)
        flash = kind != "cuda" or self.bf16  # which a GPU's attention of packed rows takes alone
        self.packing = ours and flash and _pays(config.packing, kind)
        twice = int(bool(config.activation_checkpointing))
        if kind == "cuda" and self.place.processes == 1 and config.tokens_per_pass is None:
            self.tokens_per_pass, twice = self._roomy()
        if twice:
            self.model.activation_checkpointing_enable(every_n_layers=twice)
        self._twice = bool(twice)
        if self._compiled:
            self._compile()
        weights = sum(p.numel() for p in self.model.parameters())
        small = self.packing and weights < MOST_WEIGHTS and not twice
        self._recorded: RecordedPass | None = None
        if kind == "cuda" and small and self.place.processes == 1 and _pays(config.cuda_graphs, kind):
            self._recorded = RecordedPass(self._backward)
        self._stream: Any = None

    def _roomy(self) -> tuple[int, int]:
        """How many tokens a pass may have, and every how manieth layer computes its activations twice."""
        import torch

        free, asked = torch.cuda.mem_get_info(self.device)[0], self.config.activation_checkpointing
        tokens, twice = memory.fitting(self.model, self.weights, free, self.config.max_tokens, kept=asked is False)
        return tokens, 1 if asked else twice

    def _compile(self) -> None:
        """Compiles the layers, all to one code."""
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Settings.from_env().cache.absolute() / "compiled"))
        embeddings = self.model.get_input_embeddings()
        if not embeddings.weight.requires_grad and not self.config.freeze_layers:
            # So that the first layer takes a gradient as all others do, and is not compiled by itself.
            embeddings.register_forward_hook(lambda _, __, output: output.requires_grad_(True))
        for block in blocks(self.model):
            block.compile(dynamic=False if self.packing else None)

    def expect(self, steps: Sequence[Sequence[EncodedRow]]) -> None:
        """What the run's steps will learn from, as far as it is known: where passes have one shape, it suits these."""
        self._expected, self.shape = [rows[self.place.rank :: self.place.processes] for rows in steps], None

    def step(self, rows: Sequence[EncodedRow], learning_rate: float, step: int) -> float:
        """Optimiser step number ``step`` over these rows; returns the mean loss in nats per answer token.

        Of several processes each takes its share of the rows; the loss is that of all.

        Raises:
            TrainingError: out of memory, however few rows are computed at once.
        """
        mine = self._chosen(rows[self.place.rank :: self.place.processes], step)
        total = self.place.total(sum(r.weight * r.answer_tokens for r in mine))
        with self._apart():
            loss = self._graded(mine, rows[0], total)
            self.place.average([p.grad for p in self.method.parameters.values() if p.grad is not None])
            clip(list(self.learning.values()), self.config.clip_norm)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=False)
            self.renew()
        return self.place.total(loss.item())

    def renew(self) -> None:
        """Makes the bfloat16 copy anew from the weights behind it."""
        import torch

        if self._rounded:
            with torch.no_grad():
                torch._foreach_copy_(self._rounded, list(self.weights.values()))

    def loss(self, rows: Sequence[EncodedRow]) -> float | None:
        """Mean loss over rows it does not learn from; None without rows."""
        import torch

        if not rows:
            return None
        mine = rows[self.place.rank :: self.place.processes]
        with torch.no_grad(), self._as_written():
            summed = sum(self._summed(p).item() for p in self._passes(mine, rows[0]))
        return self.place.total(summed) / sum(r.weight * r.answer_tokens for r in rows)

    def finished(self, weights: dict[str, Tensor] | None = None) -> Any:
        """The student with the weights as they are, or with these, in bfloat16. All processes must call it."""
        found = weights or self.whole_weights()
        return finished(self.config, self._folder, found, rounds=not (self.bf16 and self.config.tuning == "full"))

    def whole_weights(self) -> dict[str, Tensor]:
        """A copy of ``weights``, whole and on the CPU. All processes must call it."""
        return {name: whole(weight).clone() for name, weight in self.weights.items()}

    def _chosen(self, rows: Sequence[EncodedRow], step: int) -> Sequence[EncodedRow]:
        """The method's choice of rows. One that looks at a split student gets it whole."""
        if type(self.method).rows is Method.rows:
            return self.method.rows(rows, step, self.model)
        with self._as_written():
            if self.place.processes == 1:
                return self.method.rows(rows, step, self.model)
            found: Sequence[EncodedRow] = self._within(
                lambda: gathered(self.model, lambda: self.method.rows(rows, step, self.model))
            )
            return found

    def _graded(self, rows: Sequence[EncodedRow], spare: EncodedRow, total: float) -> Tensor:
        """Adds up the gradients of the rows' loss over ``total``; returns that loss. Halves passes that don't fit."""
        import torch

        while True:
            loss = torch.zeros((), device=self.device)  # read once: a GPU is not waited for after each pass
            try:
                for part in self._passes(rows, spare):
                    recorded = self._recorded is not None and part.known is None
                    loss += self._recorded(part, total) if self._recorded and recorded else self._backward(part, total)
                return loss
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if self.place.processes > 1:
                    raise TrainingError(
                        f"out of memory with {self.tokens_per_pass} tokens a pass; with several processes a run "
                        f"cannot go on from there: start it with fewer (--tokens-per-pass), or more processes"
                    ) from error
                self.tokens_per_pass = halved(self.tokens_per_pass, rows)
            log.warning("out_of_memory", tokens_per_pass=self.tokens_per_pass)
            self.shape = None
            if self._recorded:
                self._recorded.forget()
            self.optimizer.zero_grad(set_to_none=False)
            for parameter in self._rounded:
                parameter.grad = None
            forget_cached(self.device)

    def _backward(self, part: Pass, total: float | Tensor) -> Tensor:
        """Adds up the gradients of the pass's loss over ``total``; returns that loss."""
        mean = self._summed(part) / total
        # Several processes' gradients are averaged, and theirs is a sum.
        (mean * self.place.processes).backward()  # type: ignore[no-untyped-call]
        return mean.detach()

    def _passes(self, rows: Sequence[EncodedRow], spare: EncodedRow) -> Iterable[Pass]:
        """The rows' passes. Of several processes all take as many of each kind, since they gather layers together."""
        alone = self.place.processes == 1
        if self.packing:
            shape = self._shaped(rows or [spare])
            found = (filled(part, shape, self.device) for part in cut(rows, shape))
            if alone:
                return found  # made one by one, while a GPU computes the last
            parts = list(found)
            most = max(count for (count,) in self.place.everybodys([len(parts)]))
            return parts + [idle_filled(spare, shape, self.device) for _ in range(int(most) - len(parts))]
        # Checkpointing computes a layer twice, but its keys once; and with keys at hand a layer is compiled anew.
        sharing = not self._twice and not self._compiled
        parts = list(passes(rows, self.tokens_per_pass, self.device, sharing)) if rows else []
        if alone:
            return parts
        kinds = [[p for p in parts if (p.prefix is not None) == shared] for shared in (True, False)]
        counts = [max(c) for c in zip(*self.place.everybodys([len(k) for k in kinds]), strict=True)]
        for shared, (kind, count) in enumerate(zip(kinds, counts, strict=True)):
            kind += [idle(spare, self.device, not shared) for _ in range(int(count) - len(kind))]
        return [p for kind in kinds for p in kind]

    def _shaped(self, rows: Sequence[EncodedRow]) -> PassShape:
        """The run's shape, which changes for a row alone that it doesn't hold."""
        shape = self.shape or fitting(self._expected or [rows], self.tokens_per_pass)
        self.shape = shape if shape.holds(rows) else shape.grown(rows)
        return self.shape

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """On a stream of its own, where passes are recorded: torch records on no other."""
        import torch

        if self._recorded is None:
            yield
            return
        self._stream = self._stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)

    def _as_written(self) -> AbstractContextManager[Any]:
        """For what is computed now and then, without gradients: it is not worth another compiling."""
        import torch

        return torch.compiler.set_stance("force_eager") if self._compiled else nullcontext()

    def _summed(self, part: Pass) -> Tensor:
        """The pass's weighted loss, summed over its answer tokens."""
        found: Tensor = self._within(lambda: self._loss(part))
        return found

    def _loss(self, part: Pass) -> Tensor:
        output = self.model.get_output_embeddings().weight
        computed = answers(self.model, part, output, self.method.layers)
        with self._autocast():
            return self.method.loss(computed, part)

    def _autocast(self) -> AbstractContextManager[Any]:
        """For what a method computes by itself, whose own weights are float32."""
        import torch

        if not self.bf16:
            return nullcontext()
        return torch.autocast(self.device.split(":", maxsplit=1)[0], dtype=torch.bfloat16)


def _pays(asked: bool | None, kind: str) -> bool:
    """What the configuration asks for; where it says nothing, what pays on a GPU alone."""
    return kind == "cuda" if asked is None else asked


def _optimizer(weights: dict[str, Tensor], config: TrainConfig) -> Optimizer:
    import torch

    wide, narrow = ([w for w in weights.values() if (w.ndim >= 2) == is_wide] for is_wide in (True, False))
    groups = [{"params": wide, "weight_decay": config.weight_decay}, {"params": narrow, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.learning_rate, fused=True)
