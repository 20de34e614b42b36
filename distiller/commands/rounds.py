"""Rounds of the closed loop: ``run`` makes one, ``watch`` makes them by themselves, ``status`` tells what is due."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from distiller.commands.common import DEFAULT, PolicyFile, Seed, console, say_live
from distiller.economics.scales import Scales
from distiller.home import RoundKind, unfinished
from distiller.rounds.trigger import Tally, count, due
from router.contracts.bundles import read_active
from router.contracts.guard_report import read_guarded
from router.contracts.rounds import history
from router.errors import LocumError
from router.policy.policy import Policy, load_policy
from router.settings import Settings
from router.store.access import reading

if TYPE_CHECKING:
    from distiller.rounds.report import RoundReport

NOTHING = Tally()
RETRY_SECONDS = 300.0

Policies = Annotated[list[Path], typer.Option("--policy", "-p", help="Policy file; repeat for several.")]


def run(
    policy: PolicyFile = DEFAULT,
    no_train: Annotated[
        bool, typer.Option("--no-train", help="Keep the student; only fit its scorer and thresholds anew.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Run even if the policy's trigger says it is too early.")
    ] = False,
    seed: Seed = 0,
    keep_work: Annotated[
        bool, typer.Option("--keep-work", help="Keep the work folder: dataset, weights, answers of a rejected one too.")
    ] = False,
) -> None:
    """Run one round: dataset, training, export, evaluation, scorer and thresholds, gate, bundle, swap.

    A candidate goes live only if, on audited traffic it was never trained on, it is proven no worse than
    the live student, overall and on every large slice, and can carry a larger share of the traffic at the
    policy's target. Beside a live bundle it serves a share of the conversations first (`distil.canary`), and no
    round starts until it is kept or rolled back. A killed round goes on where it stopped when you call it again.
    """
    chosen, settings = load_policy(policy), Settings.from_env()
    if _canary_goes_on(chosen, settings) and not force:
        raise typer.Exit(0)
    if not force and not no_train and unfinished(settings.work(chosen.name)) is None:
        wanted, why = _due(chosen, settings, _tally(chosen, settings), Scales(settings))
        if wanted is not RoundKind.TRAIN:
            console.print(f"No round is due: {why}. Use --force to run one anyway.")
            raise typer.Exit(0)
    _round(chosen, settings, RoundKind.CALIBRATE if no_train else RoundKind.TRAIN, seed, keep_work)


def watch(
    policy: Policies = [DEFAULT],  # noqa: B006  (typer reads it, nobody changes it)
    once: Annotated[bool, typer.Option("--once", help="Look once, run what is due, and end.")] = False,
    interval: Annotated[float, typer.Option(help="Seconds between two looks at the log.")] = 30.0,
    seed: Seed = 0,
) -> None:
    """Run rounds by themselves: train when enough new records are there, tune when the audits have grown.

    A round starts at `distil.min_new_records` trainable records that no round has used yet; where one
    costs money (`distil.usd_per_hour`), only if it is expected to pay within `distil.payback_days`. Between
    them, scorer and thresholds are tuned anew whenever the audited requests have grown by half: more
    evidence certifies a looser threshold, so that the student may carry more. A canary is kept or rolled back by its
    own audits, beside the live student on the same prompts.
    """
    settings = Settings.from_env()
    tallies: dict[Path, Tally] = {}
    scales = Scales(settings)
    while True:
        pause = interval
        for file in policy:
            try:
                tallies[file] = _look(load_policy(file), settings, tallies.get(file, NOTHING), scales, seed)
            except LocumError as e:
                if once:
                    raise
                console.print(f"{file}: {e}; looking again in {RETRY_SECONDS:.0f} s", style="red")
                pause = max(interval, RETRY_SECONDS)
        if once:
            return
        time.sleep(pause)


def status(policy: PolicyFile = DEFAULT) -> None:
    """Show the live bundle, what the log holds for the next round, and how the last round ended."""
    chosen, settings = load_policy(policy), Settings.from_env()
    active = read_active(settings.bundles(chosen.name))
    rounds = history(settings.work(chosen.name))
    wanted, why = _due(chosen, settings, _tally(chosen, settings), Scales(settings))
    console.print(
        f"live: {active.bundle or 'the base student alone'}; before it: {active.previous or 'the base student'}"
    )
    _show_canary(chosen, settings)
    console.print(f"next: {f'a round to {wanted} is due' if wanted else 'no round is due'}: {why}")
    if interrupted := unfinished(settings.work(chosen.name)):
        console.print(f"a round to {interrupted} was interrupted; `locum distill run` goes on with it")
    if rounds:
        last = rounds[-1]
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(last["at"]))
        console.print(f"last: {when}, {last['kind']}: {last['bundle'] or 'nothing published'}")
        for reason in last["reasons"]:
            console.print(f"  {reason}")
        for reason, rows in last.get("skipped", {}).items():
            console.print(f"  left out: {reason}: {rows}")


def _due(policy: Policy, settings: Settings, tally: Tally, scales: Scales) -> tuple[RoundKind | None, str]:
    """The round that is due, by the log, by the rounds that ended, by what the guard found, and by whether it pays."""
    rounds, guarded = history(settings.work(policy.name)), read_guarded(settings.bundles(policy.name))
    wanted, why = due(policy, tally, rounds, guarded)
    if wanted is not RoundKind.TRAIN or (worth := scales.worth(policy)) is None:
        return wanted, why
    return due(policy, tally, rounds, guarded, worth)


def _look(policy: Policy, settings: Settings, known: Tally, scales: Scales, seed: int) -> Tally:
    """Ends the canary, or runs the round that is due or was interrupted; returns what the log holds by now."""
    if _canary_goes_on(policy, settings):
        return known
    tally = _tally(policy, settings, known)
    wanted, why = _due(policy, settings, tally, scales)
    interrupted = unfinished(settings.work(policy.name))
    if interrupted is not None:
        wanted, why = interrupted, "a round was interrupted"
    console.print(f"{policy.name}: {why}" + ("" if wanted else "; nothing to do"))
    if wanted:
        _round(policy, settings, wanted, seed, keep_work=False)
    return tally


def _round(policy: Policy, settings: Settings, kind: RoundKind, seed: int, keep_work: bool) -> RoundReport:
    from distiller.commands.tables import round_table
    from distiller.progress import ConsoleProgress
    from distiller.rounds.round import run_round  # torch and scikit-learn: only a round pays for them

    _yield_to_serving()
    with ConsoleProgress(console) as tell:
        report = run_round(policy, settings, kind=kind, seed=seed, keep_work=keep_work, tell=tell)
    console.print(round_table(report))
    canary = read_active(settings.bundles(policy.name)).canary
    if report.bundle:
        say_live(policy, settings, report.bundle, canary=canary is not None and canary.bundle == report.bundle)
    else:
        console.print("Nothing was published; what was live stays live.", style="yellow")
    return report


def _canary_goes_on(policy: Policy, settings: Settings) -> bool:
    """Looks at the canary, if there is one, and ends it where it is time to; whether it goes on. A round that was
    interrupted goes first: it may be the canary's own."""
    active = read_active(settings.bundles(policy.name))
    if (active.canary is None and active.ended is None) or unfinished(settings.work(policy.name)) is not None:
        return False
    from distiller.progress import ConsoleProgress
    from distiller.rounds.trial import look  # features and engines: only a canary pays for them

    with ConsoleProgress(console) as tell:
        looked = look(policy, settings, tell=tell)
    if looked is not None:
        console.print(f"{policy.name}: {looked.told}")
    return looked is not None and looked.under_way


def _show_canary(policy: Policy, settings: Settings) -> None:
    active = read_active(settings.bundles(policy.name))
    if active.canary is None and active.ended is None:
        return
    from distiller.rounds.trial import told_of, under_way

    if (trial := under_way(policy, settings)) is not None:
        due = f"; `locum distill watch` ends it now, by {trial.due}" if trial.due else ""
        console.print(f"{trial.told}{due}")
    elif active.ended is not None:
        console.print(told_of(active.ended))


def _tally(policy: Policy, settings: Settings, known: Tally = NOTHING) -> Tally:
    with reading(settings) as log:
        return count(log, policy, known)


def _yield_to_serving() -> None:
    """Learning takes what serving leaves of the CPU, and cleans up its children when it is told to stop.

    OpenMP reads its wait policy when torch is loaded: threads that spin at a barrier would keep the
    student's from running.
    """
    os.setpriority(os.PRIO_PROCESS, 0, 10)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

    def stop(signum: int, frame: FrameType | None) -> None:
        sys.exit(128 + signum)

    signal.signal(signal.SIGTERM, stop)
