"""``locum distill synthesize``: the teacher writes and answers requests of kinds that are thin or that fail."""

from __future__ import annotations

import os
import random
import tempfile
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distiller.commands.common import DEFAULT, PolicyFile, console, usd_option
from router.errors import LocumError
from router.policy.policy import load_policy
from router.settings import Settings

if TYPE_CHECKING:
    from distiller.synthesis.plan import SynthesisPlan
    from distiller.synthesis.run import Report


def synthesize(
    policy: PolicyFile = DEFAULT,
    usd: Annotated[
        str | None,
        typer.Option("--usd", help="What it may cost at most; by default the policy's distil.synthetic.usd."),
    ] = None,
    per_cluster: Annotated[
        int | None, typer.Option("--per-cluster", min=1, help="Rows wanted of a kind; by default the policy's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of which examples are shown.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask nobody: show the kinds, what would be asked and about what it costs.")
    ] = False,
) -> None:
    """Have the teacher write requests of kinds that are thin or that the student fails at, and answer them.

    What it writes is kept where it is new, whole, and answered the same way twice, as the policy's judge sees it;
    every dataset from then on trains on it, none measures by it. A killed run goes on where it was when you call
    it again, and pays for no call twice. What it cost counts against the saving.
    """
    from distiller.home import one_round_at_a_time
    from distiller.progress import ConsoleProgress
    from distiller.synthesis.plan import planned
    from distiller.synthesis.run import synthesize as written
    from router.scoring.text.encoder import load_encoder

    chosen, settings = load_policy(policy), Settings.from_env()
    most = chosen.distil.synthetic.usd if usd is None else usd_option("--usd", usd)
    if dry_run:
        with tempfile.TemporaryDirectory() as folder:
            encoder = partial(load_encoder, settings.cache)
            found = planned(chosen, settings, os.environ, encoder, folder=Path(folder), per_cluster=per_cluster)
            _show_plan(found, most)
        return
    if not most:
        raise LocumError("say what it may cost at most: --usd 2.00, or distil.synthetic.usd in the policy")
    with one_round_at_a_time(settings), ConsoleProgress(console) as tell:
        report = written(
            chosen,
            settings,
            os.environ,
            usd=most,
            encoder=partial(load_encoder, settings.cache),
            tell=tell,
            per_cluster=per_cluster,
            seed=seed,
        )
    _show_report(report)


def _show_plan(plan: SynthesisPlan, usd: Decimal) -> None:
    from rich.table import Table

    from distiller.synthesis.prompts import drawn, to_write

    table = Table("kind", "why", "rows", "to train on", "wrong", "wanted", "about USD", title_justify="left")
    table.title = f"what {plan.teacher.label} would write"
    for kind in plan.kinds:
        wrong = f"{kind.wrong} of {kind.judged}" if kind.judged else "not judged"
        figures = (str(kind.rows), str(kind.train), wrong, str(kind.wanted), f"{plan.estimates[kind.name]:.4f}")
        table.add_row(kind.name, kind.why, *figures)
    console.print(table)
    for name in plan.bare:
        console.print(f"{name}: weak too, but with too little to show", style="dim")
    total = sum(plan.estimates.values(), Decimal(0))
    limit = f"; at most {usd} USD would be spent" if usd else ""
    console.print(f"about {total:.4f} USD in all, if everything is kept{limit}")
    if plan.kinds:
        console.print("\nThe first of what would be asked:", style="bold")
        form = plan.kinds[0].forms[0]
        for message in to_write(form, drawn(form, random.Random(0)), 0)["messages"]:
            console.print(f"{message['role']}: {message['content']}", style="dim")


def _show_report(report: Report) -> None:
    from rich.table import Table

    table = Table("kind", "kept", "wanted", title="synthetic rows", title_justify="left")
    for name, wanted in report.wanted.items():
        table.add_row(name, str(report.kept[name]), str(wanted))
    for reason, times in report.out.items():
        table.add_row(f"not kept: {reason}", str(times), "", style="dim")
    console.print(table)
    rest = f"; it stopped early: {report.stopped}" if report.stopped else ""
    console.print(f"{report.rows} rows for {report.cost_usd} USD{rest}")
