"""``locum distill train``: one training by hand, with all that a round says of its own, and more."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from distiller.commands import dataset as datasets
from distiller.commands.common import DEFAULT, PolicyFile, console
from router.errors import TrainingError
from router.policy.policy import Policy, load_policy
from router.settings import Settings

if TYPE_CHECKING:
    from distiller.config import TrainConfig
    from distiller.training.loop import TrainReport


class TuningName(StrEnum):
    AUTO = "auto"
    FULL = "full"
    LORA = "lora"


class Numbers(StrEnum):
    AUTO = "auto"
    BF16 = "bf16"
    FP32 = "fp32"


class Starter(StrEnum):
    NONE = "none"
    TORCHRUN = "torchrun"
    RAY = "ray"


class TrackerName(StrEnum):
    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"
    WANDB = "wandb"


def _how(text: str, *names: str, panel: str = "How it learns", **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False, **more)


def _much(text: str, *names: str, **more: Any) -> Any:
    return _how(text, *names, panel="Speed and memory", **more)


def _many(text: str, *names: str, **more: Any) -> Any:
    return _how(text, *names, panel="Several processes, and who watches", **more)


DatasetFolder = Annotated[
    Path | None, typer.Option(help="Folder that `locum distill dataset build` wrote; else built from the log now.")
]
StudentName = Annotated[
    str | None, typer.Option(help="Hugging Face folder, or a name as in the policy; else the policy's student.")
]
Out = Annotated[Path, typer.Option(help="Folder for the trained student, its report and its loss plot.")]

MethodName = Annotated[str | None, _how("hard-label (the default), reasoning, soft-label, on-policy, feature, …")]
With = Annotated[list[str], _how("A setting of the method; repeat: --with teacher=DIR --with temperature=2", "--with")]
Tuning = Annotated[TuningName | None, _how("All weights, or adapters merged in at the end (from 1B on, unless said).")]
Epochs = Annotated[float | None, _how("How often each row is seen; 0.5 is half of them.", min=0.001)]
Soup = Annotated[int | None, _how("Train so often in different orders, take the mean of the weights (1).", min=1)]
Rate = Annotated[float | None, _how("Its peak: warm-up before, half a cosine after.", "--learning-rate", "--lr")]
Patience = Annotated[int | None, _how("End after so many dev losses no better than the best; keep that one.", min=0)]
Evaluations = Annotated[int | None, _how("With --patience: dev losses measured in the whole run (10).", min=1)]
Embeddings = Annotated[
    bool | None, _how("Hold the embeddings, as by default, or move them.", "--hold-embeddings/--move-embeddings")
]
FrozenLayers = Annotated[int | None, _how("So many of the lowest layers stay as they are (0).", min=0)]
Rank = Annotated[int | None, _how("Rank of the adapters (16).", min=1)]
SeedOption = Annotated[int | None, _how("The same data and seed give the same student (0).")]
Batch = Annotated[int | None, _how("Rows a step.", "--batch", min=1)]
Longest = Annotated[int | None, _how("Longer rows, prompt and answer together, are left out.", min=2)]

AtOnce = Annotated[
    int | None, _much("Computed at once (2048; on a GPU by its memory); halved where that does not suffice.", min=1)
]
Precision = Annotated[Numbers | None, _much("bf16 where the hardware multiplies it, unless said.")]
Device = Annotated[str | None, _much("cuda, cuda:1 or cpu; else a GPU where there is one.")]
Threads = Annotated[int | None, _much("CPU threads.", min=1)]
Twice = Annotated[
    bool | None,
    _much("Compute activations twice, hold few (by need, unless said).", "--checkpoint-activations"),
]
Packing = Annotated[bool | None, _much("Rows one behind the other, nothing padded (on a GPU, unless said).")]
Compile = Annotated[bool | None, _much("Compile the layers (on a GPU, unless said).")]
Graphs = Annotated[bool | None, _much("Record a small student's passes (on a GPU, unless said).")]

Launcher = Annotated[Starter | None, _many("torchrun: on this machine. ray: on a cluster, RAY_ADDRESS.")]
Processes = Annotated[int | None, _many("One a GPU; each holds a part of the weights.", min=1)]
Track = Annotated[TrackerName | None, _many("Send the losses there, too.")]


def train(
    *,
    policy: PolicyFile = DEFAULT,
    dataset: DatasetFolder = None,
    student: StudentName = None,
    out: Out = Path("student"),
    method: MethodName = None,
    given: With = [],  # noqa: B006  (typer reads it, nobody changes it)
    tuning: Tuning = None,
    epochs: Epochs = None,
    soup: Soup = None,
    learning_rate: Rate = None,
    patience: Patience = None,
    evaluations: Evaluations = None,
    freeze_embeddings: Embeddings = None,
    freeze_layers: FrozenLayers = None,
    lora_rank: Rank = None,
    seed: SeedOption = None,
    batch_size: Batch = None,
    max_tokens: Longest = None,
    tokens_per_pass: AtOnce = None,
    precision: Precision = None,
    device: Device = None,
    threads: Threads = None,
    activation_checkpointing: Twice = None,
    packing: Packing = None,
    compile: Compile = None,
    cuda_graphs: Graphs = None,
    launcher: Launcher = None,
    processes: Processes = None,
    track: Track = None,
) -> None:
    """Train a student on a dataset, or straight on what the policy's log holds.

    What is not said is as the policy's `distil` part has it. A run that was cut off, even by kill -9, goes on from
    its last checkpoint when called again alike. Nothing goes live by it: `locum distill run` judges and switches.

        locum distill train --dataset dataset --student smollm2-135m-instruct --out student

        locum distill train --method soft-label --with teacher=./smollm2-1.7b --patience 3

        locum distill train --launcher torchrun --processes 8 --batch 256
    """
    said = {k: v for k, v in locals().items() if k not in ("policy", "dataset", "student", "out", "method", "given")}
    chosen = load_policy(policy) if policy.is_file() or not (dataset and student) else None
    config = _config(chosen, {k: v.value if isinstance(v, StrEnum) else v for k, v in said.items() if v is not None})
    config = replace(config, method=_method(config, method, given))
    if dataset is None:
        dataset = out.with_name(f"{out.name}.dataset")
        datasets.build(policy, dataset)
    _learn(config, chosen, student, dataset, out)


def _config(policy: Policy | None, said: dict[str, Any]) -> TrainConfig:
    from distiller.config import TrainConfig

    config = replace(TrainConfig.from_policy(policy) if policy else TrainConfig(), **said)
    if config.processes > 1 and config.launcher == "none":
        raise TrainingError(f"--processes {config.processes} needs --launcher torchrun or ray: who starts them?")
    return config


def _method(config: TrainConfig, name: str | None, given: list[str]) -> Any:
    """The method's settings. Those of the policy hold for its own method, unless another is named."""
    import yaml
    from pydantic import TypeAdapter, ValidationError

    from router.policy.distillation import MethodSettings

    pairs = [text.partition("=") for text in given]
    if wrong := [text for text, (_, equals, _) in zip(given, pairs, strict=True) if not equals]:
        raise TrainingError(f"--with {wrong[0]}: say NAME=VALUE, such as --with temperature=2")
    kept = {} if name not in (None, config.method.name) else config.method.model_dump()
    values = {**kept, "name": name or config.method.name, **{k: yaml.safe_load(v) for k, _, v in pairs}}
    try:
        return TypeAdapter(MethodSettings).validate_python(values)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc'][1:])) or 'name'}: {e['msg']}" for e in error.errors())
        raise TrainingError(f"--method {values['name']}: {told}") from None


def _learn(config: TrainConfig, policy: Policy | None, student: str | None, dataset: Path, out: Path) -> None:
    from distiller.data.dataset import load
    from distiller.training.loop import PLOT, REPORT
    from distiller.training.run import trained
    from distiller.training.student import tuned
    from router.engine.weights import base_student

    if policy is not None and student is None and not policy.student.traits.generates:
        _fit_heads(policy, dataset, out)
        return
    name = student or (policy.student.model if policy else "")
    start = base_student(name, Settings.from_env().cache)
    report = trained(config, start, load(dataset), out)
    console.print(_table(tuned(config, start), report))
    console.print(f"{out} · {out / REPORT} · {out / PLOT}")


def _fit_heads(policy: Policy, dataset: Path, out: Path) -> None:
    from distiller.data.dataset import load
    from distiller.progress import ConsoleProgress
    from distiller.training.run import heads_of
    from router.scoring.text.encoder import load_encoder

    encoder = load_encoder(Settings.from_env().cache, policy.scorer.encoder)
    with ConsoleProgress(console) as tell:
        found = heads_of(load(dataset), out, encoder, tell.step)
    table = Table("kind", "requests", "answers", "new next", "", title="label heads", title_justify="left")
    for kind in found["kinds"]:
        row = kind["name"], f"{kind['requests']:,}", str(kind["distinct"]), f"{kind['unseen']:.0%}"
        table.add_row(*row, kind["why"] or "a head")
    console.print(table)
    console.print(f"{out} · {found['rows']:,} rows in {found['seconds']:.0f} s")


def _table(config: TrainConfig, report: TrainReport) -> Table:
    table = Table(title="trained" + (" (resumed)" if report.resumed else ""), title_justify="left", show_header=False)
    early = ", ended early" if report.stopped_early else ""
    kept = f", weights of step {report.best_step}" if report.best_step is not None else ""
    where = f"{report.precision} on {report.device}" + (f" × {report.processes}" if report.processes > 1 else "")
    mean = f", mean of {config.soup} trainings" if config.soup > 1 else ""
    table.add_row("method", f"{config.method.name}, {config.tuning}{mean}")
    table.add_row("rows", f"{report.rows}, at most {config.max_tokens} tokens each")
    for reason, rows in report.left_out.items():
        table.add_row(f"left out: {reason}", str(rows))
    table.add_row("steps", f"{report.steps}{early}{kept}")
    table.add_row("loss", f"{report.first_loss:.4f} -> {report.last_loss:.4f}")
    if report.dev_loss is not None and report.dev_loss_before is not None:
        table.add_row("dev loss", f"{report.dev_loss_before:.4f} -> {report.dev_loss:.4f}")
    table.add_row("took", f"{report.seconds:.0f} s, {report.tokens_per_second:,.0f} tokens/s, {where}")
    return table
