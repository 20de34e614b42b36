"""What ``locum status`` shows, from the records and the files of one home; the proxy need not run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from router.contracts.bundles import ActivePointer, Manifest, read_active, read_manifest
from router.contracts.decision import Tier
from router.contracts.files import read_run_file, ready_state
from router.contracts.guard_report import read_guarded
from router.contracts.records import AnswerKind
from router.contracts.rounds import training_costs
from router.errors import PolicyError
from router.policy.policy import Policy, load_policy
from router.reports.figures import figures
from router.reports.summary import Summary
from router.reports.terminal import BASE, Terminal, date, share, table_of
from router.scoring.statistics.shift import BLOCK
from router.scoring.text.encoder import kept_encoder
from router.served.drift import DriftFinding, look
from router.settings import Settings
from router.store.access import open_readonly
from router.store.base import Records

LEAST_BYTES = 64 * 1024
"""A disk with less takes no record."""


def show(policy_paths: Sequence[Path], *, hours: float, settings: Settings, console: Console | None = None) -> None:
    """Prints each policy's figures over the last ``hours``.

    Raises:
        PolicyError: a policy file is wrong; what there is to say of the others is printed before.
        StoreError: the records cannot be read.
    """
    out = console or Terminal()
    out.print(_proxy(settings))
    full = _full(settings)
    if full:
        out.print(Text(full, style="red"))
    wrong = []
    with closing(open_readonly(settings)) as records:
        for path in policy_paths:
            try:
                _show_policy(load_policy(path), records, hours, settings, out, full=bool(full))
            except PolicyError as e:
                wrong.append(str(e))
        if said := records.unread.said():
            out.print(Text(said, style="red"))
    if wrong:
        raise PolicyError(f"{'; '.join(wrong)} (a proxy that runs goes on by what the file said before)")


def figures_of(policy_paths: Sequence[Path], *, hours: float, settings: Settings) -> dict[str, Any]:
    """Each policy's figures over the last ``hours``, by its name, as plain values: amounts are US dollars, as text.

    Raises:
        PolicyError: a policy file is wrong.
        StoreError: the records cannot be read.
    """
    found: dict[str, Any] = {}
    with closing(open_readonly(settings)) as records:
        for policy in map(load_policy, policy_paths):
            live = read_active(settings.bundles(policy.name)).bundle
            summary = summarise(policy, records, settings, since=time.time() - 3600 * hours)
            floors = summary.floors(live, policy.objective.floor) if policy.objective.floor else {}
            by_task = {task: at.as_dict() for task, at in floors.items()}
            found[policy.name] = {**summary.as_dict(), "live": live, "floor_by_task": by_task}
    return found


def _show_policy(
    policy: Policy, records: Records, hours: float, settings: Settings, out: Console, *, full: bool
) -> None:
    out.rule(Text(policy.name, style="bold"), align="left")
    out.print(_live(policy, settings))
    now = time.time()
    summary = summarise(policy, records, settings, since=now - 3600 * hours)
    some = summary.requests or summary.embeddings
    bundle = read_active(settings.bundles(policy.name)).bundle
    shown = figures(policy, summary, hours, bundle) if some else _nothing(policy, hours, settings, full=full)
    out.print(shown)
    if summary.requests and bundle is not None:
        out.print(
            _drift(look(records, settings, policy.name, bundle, encoder=lambda: kept_encoder(settings.cache), now=now))
        )


def summarise(policy: Policy, records: Records, settings: Settings, *, since: float) -> Summary:
    """One policy's figures since a unix time, training rounds of that time included in the spend."""
    summary = Summary()
    for _, record in records.records(policy=policy.name, since=since, embeddings=True):
        summary.add(record, may_train=policy.may_train_on_teacher or policy.distil.labels_from is not None)
    for at, usd in training_costs(settings.bundles(policy.name), settings.work(policy.name)):
        if at >= since:
            summary.spend[Tier.STUDENT, AnswerKind.TRAINED] += usd
    return summary


def _nothing(policy: Policy, hours: float, settings: Settings, *, full: bool) -> Text:
    if full:
        where = f"No record of the last {hours:g} h in {settings.records_db}"
        return Text(f"{where}; how many requests there were nobody can tell from it.\n", style="yellow")
    return Text(
        f"No request in the last {hours:g} h in {settings.records_db}. Start `locum up`, then send requests "
        f"for the model locum/{policy.name} to it: only base_url changes in your client.\n",
        style="yellow",
    )


def _proxy(settings: Settings) -> RenderableType:
    """Whether a proxy of this home runs, where, and what it says of itself."""
    said = read_run_file(settings.run)
    if said is None or not _alive(said.pid):
        return Text("proxy not running; figures are from the records", style="dim")
    running = Text(f"proxy running at {said.url} (pid {said.pid})", style="green")
    ready = ready_state(said)
    if ready is None:
        return Group(running, Text("  it does not answer /health/ready", style="red"))
    lines = [f"  {problem}" for problem in ready.get("problems", ())]
    for policy in ready.get("policies", ()):
        name = policy.get("policy")
        lines += [f"  {name}: {problem}" for problem in policy.get("problems", ())]
        lines += [f"  {name}: the {tier.value} cannot answer" for tier in Tier if not policy[tier.value]["ready"]]
    return Group(running, *(Text(line, style="red") for line in lines))


def _full(settings: Settings) -> str:
    """What there is to say where the disk takes no more records: then none in the log does not mean none at all."""
    try:
        found = os.statvfs(settings.home)
    except OSError:
        return ""
    if found.f_bavail * found.f_frsize >= LEAST_BYTES:
        return ""
    return f"the disk that holds {settings.home} is full: records cannot be written, so what is told here lacks some"


def _read_json(path: Path) -> dict[str, object]:
    """A run file's content; empty where there is none, or not a whole one."""
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _alive(pid: object) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # someone else's, so it is there
        return True
    return True


def _live(policy: Policy, settings: Settings) -> RenderableType:
    """What serves: the bundle, the one before, thresholds and their evidence, students that are ready."""
    folder = settings.bundles(policy.name)
    active = read_active(folder)
    table = Table.grid(padding=(0, 2))
    table.add_row("live", _bundle(folder, active.bundle))
    if active.changed_at:
        table.add_row("since", date(active.changed_at))
        table.add_row("before it", _bundle(folder, active.previous))
    if canary := _canary(policy, active):
        table.add_row("canary", canary)
    table.add_row("thresholds", _thresholds(folder, active.bundle))
    table.add_row("guard", _guard(policy, settings, active.bundle))
    table.add_row("students ready", _students(policy, settings))
    return table


def _canary(policy: Policy, active: ActivePointer) -> str | None:
    """What is tried beside the live bundle, or how the last one that was ended."""
    if active.canary is not None:
        trial = policy.distil.trial
        serves = f"serves {share(trial.share)} of the conversations" if trial else "serves none: the policy has no more"
        return f"{active.canary.bundle} {serves} since {date(active.canary.began_at)}"
    if (ended := active.ended) is None:
        return None
    word = "kept" if ended.kept else "rolled back"
    return f"{ended.bundle} was {word} at {date(ended.at)}: {'; '.join(ended.reasons)}"


def _bundle(folder: Path, bundle: str | None) -> str:
    manifest = _manifest(folder, bundle)
    if bundle is None:
        return BASE
    return f"{bundle}, made {date(manifest.created_at)}" if manifest else f"{bundle} (its manifest is gone)"


def _manifest(folder: Path, bundle: str | None) -> Manifest | None:
    try:
        return read_manifest(folder, bundle) if bundle else None
    except (OSError, ValidationError):
        return None


def _thresholds(folder: Path, bundle: str | None) -> str:
    manifest = _manifest(folder, bundle)
    if manifest is None:
        return "none yet: no scorer was fitted"
    found = manifest.thresholds
    text = f"route {_threshold(found.route)}, accept {_threshold(found.accept)}"
    if found.evidence:
        e = found.evidence
        text += f" (risk at most {e.risk_bound:.1%} at {e.confidence:.0%}, {e.method}, {e.examples} examples)"
    return text


def _threshold(value: float) -> str:
    return f"{value:.3f}" if value <= 1 else "never"


def _guard(policy: Policy, settings: Settings, bundle: str | None) -> Text:
    """What the audits have shown since the last alarm, and what holds instead of the bundle's own thresholds."""
    found = read_guarded(settings.bundles(policy.name))
    if found is None or found.bundle != bundle or not found.audits + found.alarms:
        return Text("no audit of this bundle yet")
    bounds = f"parity between {found.lower:.1%} and {found.upper:.1%} by {found.audits} audits"
    held = f"route {_threshold(found.route)}, accept {_threshold(found.accept)} in force"
    if found.alarm:
        return Text(f"ALARM: parity fell below its floor at {date(found.changed_at)}; {held}; since: {bounds}", "red")
    since = f" since its alarm at {date(found.changed_at)}" if found.alarms else ""
    return Text(f"{bounds}{since}; {held}" + ("; more is audited than usual" if found.wary else ""))


def _students(policy: Policy, settings: Settings) -> str:
    if policy.student.url:
        return f"by URL, {policy.student.url}"
    said = _read_json(settings.run / f"{policy.name}.student.json")
    versions = said.get("versions")
    if not isinstance(versions, dict) or not versions or not _alive(said.get("pid")):
        return "none: `locum up` starts them"
    return ", ".join(sorted(versions))


def _drift(found: DriftFinding) -> RenderableType:
    """What the traffic has that the scorer does not know, and whether its scores have moved."""
    strange = f"{found.strange} of {found.requests} requests ({found.strange_share:.1%}) were strange to the scorer"
    shown: list[RenderableType] = [Text.assemble(("Drift", "bold"), f"\n{strange}, in a day under {found.bundle}")]
    shown.append(_shift(found))
    if found.clusters:
        table = table_of("new kind of requests", "requests", "share", "first seen", "to teacher", "student acceptable")
        for c in found.clusters:
            judged = f"{c.acceptable} of {c.audited} audits" if c.audited else "not audited yet"
            table.add_row(c.name, str(c.requests), share(c.share), date(c.first_at), share(c.to_teacher), judged)
        shown.append(table)
    return Group(*shown, "")


def _shift(found: DriftFinding) -> Text:
    shift = found.shift
    if not found.comparable:
        return Text("the bundle does not say how scores were spread when it was made", style="dim")
    if shift is None:
        return Text(f"scores: too few since the bundle was made to compare ({BLOCK} make a block)", style="dim")
    said = f"largest gap {abs(shift.gap):.1%} at score {shift.at:.2f}, up to {shift.bound:.1%} is chance"
    said += f"; stability index {shift.stability_index:.2f}"
    if not shift.shifted:
        return Text(f"scores are spread as when the bundle was made: {said}")
    way = "lower" if shift.gap > 0 else "higher"
    return Text(f"scores are {way} than when the bundle was made: {said}", style="red")
