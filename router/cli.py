"""The ``locum`` command. Learning's commands join through the entry-point group ``locum.commands``."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from router.errors import LocumError
from router.logs import log_to_stderr, shown
from router.settings import Settings

app = typer.Typer(
    name="locum",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Let a small model you own stand in for a frontier model, and learn from it every time it can't.",
)

Policies = Annotated[list[Path], typer.Option("--policy", "-p", help="Policy file; repeat for several.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that answer; one a processor core is most.")]
DEFAULT_POLICY = [Path("policies/default.yaml")]


@app.command()
def serve(
    policy: Policies = DEFAULT_POLICY,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.")] = 8080,
    workers: Workers = 1,
) -> None:
    """Run the proxy alone: the student is reached by URL, or was started by `locum up`."""
    settings = _ready_home()
    if workers == 1:
        from router.process.server import run  # heavy: only this command pays for it

        run(policy, host=host, port=port, settings=settings)
    else:
        from router.process.workers import run as run_workers

        run_workers(policy, host=host, port=port, settings=settings, workers=workers)


@app.command()
def up(
    policy: Policies = DEFAULT_POLICY,
    host: Annotated[str, typer.Option(help="Address the proxy listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port the proxy listens on.")] = 8080,
    proxy: Annotated[bool, typer.Option(help="Run the proxy too, or leave it to one on the same home.")] = True,
    workers: Workers = 1,
) -> None:
    """Start the students that the policies ask for, supervise them, and run the proxy in front."""
    from router.process.stack import run

    run(policy, host=host, port=port, settings=_ready_home(), workers=workers if proxy else 0)


@app.command()
def engine(
    model: Annotated[str, typer.Option(help="Base student's name, or a Hugging Face folder.")],
    name: Annotated[str, typer.Option(help="Name under which the wire serves it.")] = "base",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.")] = 8090,
    precision: Annotated[
        str, typer.Option(help="auto, bf16 or fp32; auto is bf16 where the processor has it.")
    ] = "auto",
) -> None:
    """Serve one student on torch, with an OpenAI-compatible wire (`locum up` does this for you)."""
    from router.engine.model import precision_of
    from router.engine.server import run

    settings = Settings.from_env()
    run(model, name=name, host=host, port=port, settings=settings, precision=precision_of(precision))


@app.command()
def status(
    policy: Policies = DEFAULT_POLICY,
    hours: Annotated[float, typer.Option(help="How far back to look.")] = 24.0,
    as_json: Annotated[bool, typer.Option("--json", help="Spend and saving, for tools.")] = False,
) -> None:
    """Show share, quality, spend (by task, user and key too), saving and the live bundle, from the records."""
    from router.reports.status import figures_of, show

    if as_json:
        typer.echo(json.dumps(figures_of(policy, hours=hours, settings=Settings.from_env()), indent=2))
    else:
        show(policy, hours=hours, settings=Settings.from_env())


@app.command()
def explain(
    request_id: Annotated[str, typer.Argument(help="From the answer's x-locum-request-id header.")],
    policy: Policies = DEFAULT_POLICY,
    as_json: Annotated[bool, typer.Option("--json", help="For tools.")] = False,
) -> None:
    """Show why a request went where it went: each step, the score's parts, like requests, money."""
    from router.reports.explanation_page import show

    show(request_id, policy, as_json=as_json, settings=Settings.from_env())


policy_app = typer.Typer(no_args_is_help=True, help="Check a policy file, or print its JSON schema.")
app.add_typer(policy_app, name="policy")


@policy_app.command("check")
def check_policy(files: Annotated[list[Path], typer.Argument(help="Policy files.")]) -> None:
    """Say what is wrong with policy files, as `locum serve` would, whether a student can ever learn by them (and if
    not, what to change), and which of their models are about to be retired.

    Retirement dates are those of the price map, and what a provider's `/v1/models` says where its key is set.
    """
    from router.policy.learning import learning
    from router.policy.policy import load_policy
    from router.served.retirement import warned  # heavy: only this command pays for it

    policies = [load_policy(file) for file in files]
    for file, policy, warnings in zip(files, policies, asyncio.run(warned(policies, os.environ)), strict=True):
        typer.echo(f"{file}: policy {policy.name!r}, version {policy.version}, is fine")
        verdict = learning(policy)
        typer.secho(f"{file}: it {verdict.words}", fg=None if verdict.can else typer.colors.YELLOW)
        for warning in warnings:
            typer.secho(f"{file}: {warning}", fg=typer.colors.YELLOW)


@policy_app.command("schema")
def policy_schema() -> None:
    """Print the JSON schema of policy files, for editors: policies/policy.schema.json is this."""
    from router.policy.policy import json_schema

    typer.echo(json_schema(), nl=False)


judge_app = typer.Typer(
    no_args_is_help=True, help="Measure a judge against people, and get pairs of answers for people to judge."
)
app.add_typer(judge_app, name="judge")
PolicyFile = Annotated[Path, typer.Option("--policy", "-p", help="Policy file: it names the judge and the log.")]


@judge_app.command("check")
def check_judge(
    verdicts: Annotated[Path, typer.Option(help="JSON lines with people's verdicts; `locum judge sample` makes one.")],
    policy: PolicyFile = DEFAULT_POLICY[0],
    judge: Annotated[
        str | None,
        typer.Option(
            help="Measure this judge instead of the policy's: a name, or its settings, such as "
            "'{name: llm, model: openai/gpt-5-mini}'."
        ),
    ] = None,
) -> None:
    """Measure the policy's judge against people: agreement, kappa, precision and recall, with 95% intervals.

    Each line of the file is an object with `student` and `teacher` (texts or assistant messages), `request` (a
    chat-completions request) or `prompt`, and `verdict`: whether people find the student's answer as good as the
    teacher's (true or acceptable, false or unacceptable; null where nobody has judged yet). `task` picks the
    judge where the policy has several. A language model is asked twice a pair, which costs money.
    """
    from router.reports.judge_check import check

    check(policy, verdicts, judge=judge, settings=Settings.from_env())


@judge_app.command("sample")
def sample_pairs(
    out: Annotated[Path, typer.Option(help="File to write; one that is there already is never touched.")],
    policy: PolicyFile = DEFAULT_POLICY[0],
    count: Annotated[int, typer.Option(min=1, help="Pairs at most.")] = 50,
    seed: Annotated[int, typer.Option(help="The same log and seed give the same pairs.")] = 0,
) -> None:
    """Write audited pairs of answers from the log, drawn at random, for people to judge.

    Fill in each line's `verdict`: true where the student's answer is as good as the teacher's, else false. What
    the judge said is left out on purpose. Then run `locum judge check`.
    """
    from router.reports.judge_check import take_sample

    written = take_sample(policy, out, count=count, seed=seed, settings=Settings.from_env())
    typer.echo(f'{out}: {written} pairs; fill in each line\'s "verdict" with true or false')


def whole() -> typer.Typer:
    """The command with learning's joined to it. Call it once."""
    for command in sorted(entry_points(group="locum.commands")):
        _join(command.name, command.load())
    return app


def _join(name: str, command: typer.Typer | Callable[..., None]) -> None:
    """Adds one of learning's commands: a group of them, or a function that is one."""
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        app.command(name)(command)


def _ready_home() -> Settings:
    """The settings, where a proxy can keep its records by them. Raises StoreError where it cannot."""
    from router.api.responses.store import KeptResponses
    from router.store.access import check_store

    settings = Settings.from_env()
    check_store(settings)
    kept = KeptResponses(settings.home / "responses.db")
    kept.open()
    kept.close()
    return settings


def main() -> None:
    """Entry point: a ``LocumError``, or a home that cannot be used, is one clear line and exit code 1, never a
    traceback."""
    os.umask(0o077)  # what is written holds what users wrote: it is its owner's alone, whichever library writes it
    log_to_stderr()
    try:
        whole()()
    except LocumError as e:
        typer.secho(f"locum: {shown(str(e))}", fg=typer.colors.RED, err=True)
        sys.exit(1)
    except OSError as e:
        from router.store.access import unusable

        if not str(e.filename).startswith(str(Settings.from_env().home)):
            raise
        typer.secho(f"locum: {shown(str(unusable(e)))}", fg=typer.colors.RED, err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
