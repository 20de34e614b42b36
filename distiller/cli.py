"""The ``locum distill`` commands: the closed loop, by hand or by itself. What each does is in ``commands``."""

from __future__ import annotations

import typer

from distiller.commands import bundles, dataset, economics, evaluate, export, forget, rounds, synthesize, train

app = typer.Typer(
    no_args_is_help=True,
    help="Turn what the teacher answered into a better student, and switch to it only if it is proven no worse.",
)
app.command()(rounds.run)
app.command()(rounds.watch)
app.command()(rounds.status)
app.command(name="list")(bundles.list_bundles)
app.command()(bundles.rollback)
app.command()(bundles.activate)
app.add_typer(dataset.app, name="dataset")
app.command()(train.train)
app.command()(forget.forget)
app.command()(evaluate.evaluate)
app.command()(export.export)
app.command()(synthesize.synthesize)
app.command()(economics.economics)
