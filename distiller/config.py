"""One frozen dataclass per stage of learning. A user edits the policy's ``distil`` part; these follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, Self

from router.policy.distillation import HardLabelSettings, MethodSettings
from router.policy.policy import Policy

Launcher = Literal["none", "torchrun", "ray"]
Tracker = Literal["tensorboard", "mlflow", "wandb"]


@dataclass(frozen=True, slots=True)
class DatasetConfig:
    """How records become rows.

    ``dev_share``: conversations kept out of training for early stopping and scorer fitting, of which label heads
    need none.
    ``user_cap``: the largest share of the training set that one user's rows may have, against
    poisoning; it binds only where more than one user is seen, and never below an equal share each. Where a request
    names no user, its key stands for one, if the rows came with several keys; else its conversation does.
    ``near_duplicate``: Jaccard similarity of what tells prompts apart from which on they are copies, and
    share of an evaluation's prompt from which on another holds it.
    ``most_weight``: what a row of a kind of requests that the student fails at counts at most; 1: all alike.
    ``max_rows``: training rows at most; beyond it old rows make room for new ones, but at least
    ``replay`` of the budget stays with old rows, against forgetting. None: no limit.
    """

    dev_share: float = 0.15
    user_cap: float = 0.2
    near_duplicate: float = 0.8
    most_weight: float = 3.0
    max_rows: int | None = 20_000
    replay: float = 0.1

    @classmethod
    def from_policy(cls, policy: Policy) -> DatasetConfig:
        whole = cls(replay=policy.distil.replay)
        return whole if policy.student.traits.generates else replace(whole, dev_share=0.0)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a student is trained. Lengths are tokens of prompt and answer together; longer rows are left out.

    ``method``: what a step minimises. ``tuning``: all weights or adapters, which ``auto`` takes from a billion weights
    on. ``precision``: ``auto`` is bfloat16 where the
    hardware multiplies it natively, else float32; the weights that the optimiser moves are float32
    either way. ``freeze_layers``: that many of the lowest layers stay as they are. ``threads`` None
    leaves torch's choice. A checkpoint is written every ``checkpoint_seconds``, and every
    ``checkpoint_steps`` where that is set.

    ``soup``: so many trainings, each with a seed of its own from ``seed`` on; the student has the mean of their
    weights. ``patience``: after so many measurements of the dev loss that were no better than the best one,
    the run ends, and the weights of the best one are kept; ``evaluations`` of them are spread over
    the whole run. 0: the whole run, its last weights. ``tokens_per_pass`` None is what fills the
    device; ``packing``, ``compile`` and ``cuda_graphs`` None are what pays there: all on a GPU, compiling in a long run
    alone, none on a CPU.
    ``activation_checkpointing`` computes activations twice and holds few; None: in as many layers as a GPU's memory
    makes needful, nowhere on a CPU. ``launcher``: who starts
    the ``processes``, one a device. ``track``: where losses are sent beside the report.
    """

    method: MethodSettings = field(default_factory=HardLabelSettings)
    tuning: Literal["auto", "full", "lora"] = "auto"
    epochs: float = 3.0
    soup: int = 1
    learning_rate: float = 2e-4
    batch_size: int = 32
    max_tokens: int = 1024
    tokens_per_pass: int | None = None
    warmup_share: float = 0.06
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    seed: int = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    device: str | None = None
    threads: int | None = None
    freeze_embeddings: bool = True
    freeze_layers: int = 0
    lora_rank: int = 16
    patience: int = 0
    evaluations: int = 10
    packing: bool | None = None
    compile: bool | None = None
    cuda_graphs: bool | None = None
    activation_checkpointing: bool | None = None
    launcher: Launcher = "none"
    processes: int = 1
    track: Tracker | None = None
    checkpoint_seconds: float = 120.0
    checkpoint_steps: int | None = None

    @classmethod
    def from_policy(cls, policy: Policy) -> TrainConfig:
        d = policy.distil
        return cls(
            method=d.method,
            tuning=d.tuning,
            epochs=d.epochs,
            soup=d.soup,
            learning_rate=d.learning_rate,
            batch_size=d.batch_size,
            max_tokens=d.max_tokens,
            patience=d.patience,
        )


@dataclass(frozen=True, slots=True)
class EvaluateConfig:
    """How much a student is asked: the newest ``max_dev`` and ``max_holdout`` rows, ``in_flight`` at once.

    ``start_seconds``: how long its engine may take to be ready; ``answer_seconds``: how long an answer may.
    """

    max_dev: int = 2000
    max_holdout: int = 2000
    in_flight: int = 16
    start_seconds: float = 300.0
    answer_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class GateConfig:
    """``margin``: the loss of acceptable rate that still counts as no loss, shown at ``confidence``.

    ``min_slice`` is the smallest slice that may veto. ``power``: a slice too small to resolve the margin is
    judged at the smallest margin that it can resolve, so that an equal student passes all of them together with
    this probability; such a slice vetoes real harm, and never by chance of its size alone. ``fixed``: overall the
    margin stays what it is. Label heads under a quality floor are judged overall as slices are: what they answer
    wrong stays behind their own threshold, which is certified anew, and refitting them turns many answers round.
    """

    margin: float = 0.02
    confidence: float = 0.95
    min_slice: int = 20
    power: float = 0.95
    fixed: bool = True

    @classmethod
    def from_policy(cls, policy: Policy) -> Self:
        gate = policy.distil.gate
        fixed = policy.student.traits.generates or policy.objective.floor is None
        return cls(margin=gate.margin, confidence=gate.confidence, min_slice=gate.min_slice, fixed=fixed)


@dataclass(frozen=True, slots=True)
class Configs:
    """One configuration a stage; None: what follows from the policy."""

    dataset: DatasetConfig | None = None
    train: TrainConfig | None = None
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    gate: GateConfig | None = None
