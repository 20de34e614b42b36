"""How good is a student? One that is live, any other bundle, or one on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distiller.commands.common import DEFAULT, PolicyFile, console
from router.contracts.bundles import read_active
from router.errors import BundleError, LocumError
from router.policy.policy import Policy, load_policy
from router.settings import Settings
from router.store.access import reading

if TYPE_CHECKING:
    from distiller.data.rows import DatasetRow
    from distiller.evaluation.subject import Subject
    from distiller.progress import Progress


def evaluate(
    *,
    policy: PolicyFile = DEFAULT,
    bundle: Annotated[str | None, typer.Option(help="A bundle's id, or `base`; the live one by default.")] = None,
    student: Annotated[Path | None, typer.Option(help="Instead: a Hugging Face folder or a GGUF file.")] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(help="A dataset's folder, or JSON lines in the `messages` form; the log's audits by default."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="The bundle it may forget against: an id, `base` or `none`; by default its parent."),
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Ask at most so many questions, the newest.")] = 1000,
    adversarial: Annotated[int, typer.Option(min=0, help="Ask so many of them once more, perturbed.")] = 200,
    in_flight: Annotated[int, typer.Option(min=1, help="Questions under way at once; latencies depend on it.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the intervals' draws.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for report.json and report.html.")] = Path("evaluation"),
) -> None:
    """Measure a student on the form that serves: how often it is as good as the teacher, where, and at what cost.

    By task, language, length, rarity and perturbed prompts; what it forgot against its parent; whether its
    probabilities hold; how well it knows its errors; latency and cost. Answers are kept: a second call goes on.
    """
    from distiller.config import EvaluateConfig
    from distiller.evaluation.evaluation import Evaluation  # numpy, scikit-learn's scorer
    from distiller.evaluation.report import table, write
    from distiller.progress import ConsoleProgress

    if bundle is not None and student is not None:
        raise typer.BadParameter("give --bundle or --student, not both")
    chosen, settings = load_policy(policy), Settings.from_env()
    with ConsoleProgress(console) as tell:
        subject = _subject(chosen, settings, bundle, student, tell)
        rows, source = _rows(chosen, settings, dataset, most)
        config = replace(EvaluateConfig(), in_flight=in_flight)
        evaluation = Evaluation(settings, kept_in(settings, chosen), config, tell, adversarial, seed)
        found = evaluation.of(subject, _parent(chosen, settings, subject, against), rows, source)
    console.print(table(found))
    for path in write(found, out):
        console.print(f"{path} written")


def kept_in(settings: Settings, policy: Policy) -> Path:
    """Where answers and exported forms are kept; it may be deleted at any time."""
    return settings.work(policy.name) / "evaluate"


def _subject(policy: Policy, settings: Settings, bundle: str | None, student: Path | None, tell: Progress) -> Subject:
    from distiller.evaluation.subject import of_bundle, of_path

    if student is not None:
        return of_path(student, policy, kept_in(settings, policy), lambda what: tell.stage("export", what))
    return of_bundle(bundle or read_active(settings.bundles(policy.name)).bundle, policy, settings)


def _parent(policy: Policy, settings: Settings, subject: Subject, against: str | None) -> Subject | None:
    """What it is held against: by default a bundle's parent, and the live bundle for a student on disk."""
    from distiller.evaluation.subject import of_bundle

    if against == "none":
        return None
    if against is not None:
        return of_bundle(against, policy, settings)
    if subject.bundle is not None:
        last = subject.bundle.parent
    elif subject.on_disk:
        last = read_active(settings.bundles(policy.name)).bundle
    else:
        return None
    try:
        return of_bundle(last, policy, settings)
    except BundleError as e:
        console.print(f"what was forgotten cannot be told: {e}", style="yellow")
        return None


def _rows(policy: Policy, settings: Settings, dataset: Path | None, most: int) -> tuple[list[DatasetRow], str]:
    from distiller.evaluation.sources import from_log, from_path

    if dataset is not None:
        rows, source = from_path(dataset, most), str(dataset)
    else:
        with reading(settings) as log:
            rows = from_log((record for _, record in log.records(policy.name)), policy, most)
        source = "the log's audits"
    if not rows:
        raise LocumError(
            f"no question with a teacher's answer in {source}; give --dataset, or wait for audited traffic"
        )
    return rows, source
