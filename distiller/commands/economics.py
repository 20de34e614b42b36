"""``locum distill economics``: what learning costs, what it saves, and whether the next round is worth it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distiller.commands.common import DEFAULT, PolicyFile, console, usd_option
from router.contracts.prices import Price
from router.errors import LocumError, StoreError
from router.policy.policy import load_policy
from router.settings import Settings
from router.store.access import reading

if TYPE_CHECKING:
    from distiller.economics.flow import Flow
    from distiller.economics.report import Economics, Inputs
    from router.policy.policy import Policy

PerMillion = "USD per million input and output tokens, such as 1.25,10; by default what was recorded."


def economics(
    *,
    policy: PolicyFile = DEFAULT,
    teacher: Annotated[
        str | None, typer.Option("--teacher-usd-per-million", help=f"The teacher's {PerMillion}")
    ] = None,
    student: Annotated[
        str | None, typer.Option("--student-usd-per-million", help=f"The student's {PerMillion}")
    ] = None,
    usd_per_hour: Annotated[
        str | None, typer.Option("--usd-per-hour", help="The training machine's; by default the policy's.")
    ] = None,
    serving: Annotated[
        str, typer.Option("--serving-usd-per-hour", help="The student's machine, where its token price lacks it.")
    ] = "0",
    requests_per_day: Annotated[
        float | None, typer.Option("--requests-per-day", min=0.001, help="By default as the log says.")
    ] = None,
    hours: Annotated[
        float | None, typer.Option("--hours", min=0, help="Of the next round; by default as before.")
    ] = None,
    gain: Annotated[
        float | None,
        typer.Option("--gain", min=-1, max=1, help="Student share that the next round adds, such as 0.05."),
    ] = None,
    rounds_per_month: Annotated[
        float | None, typer.Option("--rounds-per-month", min=0, help="Training rounds; by default as before.")
    ] = None,
    payback_days: Annotated[
        float | None, typer.Option("--payback-days", min=0.01, help="By default the policy's.")
    ] = None,
    days: Annotated[float, typer.Option("--log-days", min=0.01, help="So much of the log is looked at.")] = 30.0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for economics.json, economics.html and economics.png.")
    ] = None,
) -> None:
    """Say what a round cost, what a month saves, from which volume on that pays, and if the next round is worth it.

    Savings are signed, and net of audits, judges and discarded answers. What the next round is expected to add is
    taken from the rounds before it, and is an assumption where there were none.
    """
    from distiller.economics.report import Inputs

    chosen, settings = load_policy(policy), Settings.from_env()
    price = None if student is None else _price("--student-usd-per-million", student)
    flow = _flow(
        chosen, settings, price, None if teacher is None else _price("--teacher-usd-per-million", teacher), days
    )
    inputs = Inputs(
        usd_per_hour=chosen.distil.usd_per_hour if usd_per_hour is None else usd_option("--usd-per-hour", usd_per_hour),
        audit_rate=chosen.audit.rate,
        payback_days=chosen.distil.payback_days if payback_days is None else payback_days,
        serving_usd_per_hour=usd_option("--serving-usd-per-hour", serving),
        requests_per_day=requests_per_day,
        hours=hours,
        gain=gain,
        rounds_per_month=rounds_per_month,
    )
    _tell(chosen.name, flow, settings, inputs, out)


def _flow(policy: Policy, settings: Settings, student: Price | None, teacher: Price | None, days: float) -> Flow:
    """The traffic of the last ``days``. Raises StoreError where there is none."""
    from distiller.economics.flow import DAY_SECONDS, Rates, flow_of

    rates = Rates(student or policy.student.usd_per_million, student_given=student is not None, teacher=teacher)
    with reading(settings) as log, console.status("reading the log"):
        records = log.records(policy.name, since=time.time() - days * DAY_SECONDS)
        flow = flow_of((record for _, record in records), rates)
    if not flow.requests:
        raise StoreError(f"no answered request of policy {policy.name!r} in the last {days:g} days of the log")
    return flow


def _tell(policy: str, flow: Flow, settings: Settings, inputs: Inputs, out: Path | None) -> None:
    from distiller.economics.report import economics as reckoned
    from distiller.economics.scales import data_usd, rounds_of

    inputs = replace(inputs, data_usd=data_usd(settings, policy, flow.first_at))
    found = reckoned(flow, rounds_of(settings, policy), inputs)
    _show(policy, found)
    if out is not None:
        _write(policy, found, out)


def _show(policy: str, found: Economics) -> None:
    from rich.table import Table

    from distiller.economics.tables import sections

    console.print(policy, style="bold")
    for name, rows in sections(found).items():
        table = Table(title=name, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
        for what, much in rows:
            table.add_row(what, much)
        console.print(table)


def _write(policy: str, found: Economics, out: Path) -> None:
    from distiller.economics.page import page, plot

    out.mkdir(parents=True, exist_ok=True)
    (out / "economics.json").write_text(json.dumps({"policy": policy, **found.as_dict()}, indent=1))
    drawn = plot(found, out / "economics.png")
    (out / "economics.html").write_text(page(policy, found, drawn), encoding="utf-8")
    console.print(f"\n{out / 'economics.json'}, economics.html{' and economics.png' if drawn else ''} written")
    if drawn is None:
        console.print("no plot: matplotlib is not installed (pip install matplotlib)", style="yellow")


def _price(name: str, value: str) -> Price:
    """USD per million input and output tokens. Raises LocumError for anything else."""
    parts = value.split(",")
    if len(parts) != 2:
        raise LocumError(f"{name} {value!r}: say USD per million input and output tokens, such as 1.25,10")
    amounts: list[Decimal] = [usd_option(name, part.strip()) for part in parts]
    return Price(input=amounts[0], output=amounts[1])
