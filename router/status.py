"""What ``locum status`` shows, from the records and the files of one home; the proxy need not run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from router.contracts.bundles import MANIFEST, Manifest, read_active, read_manifest
from router.contracts.decision import Tier
from router.contracts.guarded import read_guarded
from router.contracts.records import Kind
from router.policy import Policy, load_policy
from router.settings import Settings
from router.store.base import Records, open_readonly
from router.summary import Summary, parity, quantile

BASE = "base student"


def show(policy_paths: Sequence[Path], *, hours: float, settings: Settings, console: Console | None = None) -> None:
    """Prints each policy's figures over the last ``hours``.

    Raises:
        PolicyError: a policy file is wrong.
        StoreError: the records cannot be read.
    """
    out = console or Console()
    records = open_readonly(settings)
    out.print(_proxy(settings))
    for policy in [load_policy(path) for path in policy_paths]:
        out.rule(f"[bold]{policy.name}[/]", align="left")
        out.print(_live(policy, settings))
        summary = summarise(policy, records, settings, since=time.time() - 3600 * hours)
        out.print(_figures(policy, summary, hours) if summary.requests else _nothing(policy, hours, settings))


def summarise(policy: Policy, records: Records, settings: Settings, *, since: float) -> Summary:
    """One policy's figures since a unix time, training rounds of that time included in the spend."""
    summary = Summary()
    for _, record in records.records(policy=policy.name, since=since):
        summary.add(record, may_train=policy.may_train_on_teacher)
    for manifest in _manifests(settings.bundles(policy.name)):
        if manifest.created_at >= since:
            summary.spend[Tier.STUDENT, Kind.TRAINED] += Decimal(manifest.cost_usd)
    return summary


def _manifests(folder: Path) -> Iterator[Manifest]:
    """Every complete bundle's manifest; one that this version cannot read is passed over."""
    for path in sorted(folder.glob(f"*/{MANIFEST}")):
        try:
            yield Manifest.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue


def _nothing(policy: Policy, hours: float, settings: Settings) -> Text:
    return Text(
        f"No request in the last {hours:g} h in {settings.records_db}. Start `locum up`, then send requests "
        f"for the model locum/{policy.name} to it: only base_url changes in your client.\n",
        style="yellow",
    )


def _proxy(settings: Settings) -> Text:
    """Whether a proxy of this home runs, and where."""
    said = _read_json(settings.run / "proxy.json")
    if said and _alive(said.get("pid")):
        return Text(f"proxy running at {said.get('url')} (pid {said.get('pid')})", style="green")
    return Text("proxy not running; figures are from the records", style="dim")


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


def _table(*columns: str, title: str = "") -> Table:
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _live(policy: Policy, settings: Settings) -> RenderableType:
    """What serves: the bundle, the one before, thresholds and their evidence, students that are ready."""
    folder = settings.bundles(policy.name)
    active = read_active(folder)
    table = Table.grid(padding=(0, 2))
    table.add_row("live", _bundle(folder, active.bundle))
    if active.changed_at:
        table.add_row("since", _date(active.changed_at))
        table.add_row("before it", _bundle(folder, active.previous))
    table.add_row("thresholds", _thresholds(folder, active.bundle))
    table.add_row("guard", _guard(policy, settings, active.bundle))
    table.add_row("students ready", _students(policy, settings))
    return table


def _bundle(folder: Path, bundle: str | None) -> str:
    manifest = _manifest(folder, bundle)
    if bundle is None:
        return BASE
    return f"{bundle}, made {_date(manifest.created_at)}" if manifest else f"{bundle} (its manifest is gone)"


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
    found = read_guarded(settings.run, policy.name)
    if found is None or found.bundle != bundle or not found.audits + found.alarms:
        return Text("no audit of this bundle yet")
    bounds = f"parity between {found.lower:.1%} and {found.upper:.1%} by {found.audits} audits"
    held = f"route {_threshold(found.route)}, accept {_threshold(found.accept)} in force"
    if found.alarm:
        return Text(f"ALARM: parity fell below its floor at {_date(found.changed_at)}; {held}; since: {bounds}", "red")
    since = f" since its alarm at {_date(found.changed_at)}" if found.alarms else ""
    return Text(f"{bounds}{since}; {held}" + ("; more is audited than usual" if found.wary else ""))


def _students(policy: Policy, settings: Settings) -> str:
    if policy.student.url:
        return f"by URL, {policy.student.url}"
    said = _read_json(settings.run / f"{policy.name}.student.json")
    versions = said.get("versions")
    if not isinstance(versions, dict) or not versions or not _alive(said.get("pid")):
        return "none: `locum up` starts them"
    return ", ".join(sorted(versions))


def _figures(policy: Policy, summary: Summary, hours: float) -> Group:
    target = policy.objective.parity.at_least if policy.objective.parity else None
    parts = (
        _requests(summary, hours),
        _money(summary),
        _quality(summary, target),
        _speed(summary),
        _learning(policy, summary),
    )
    return Group(*(piece for part in parts for piece in ("", part)), "")


def _requests(summary: Summary, hours: float) -> Table:
    table = _table("answered by", "reason", "requests", "share", title=f"{summary.requests} requests in {hours:g} h")
    for tier in Tier:
        mine = [(reason, n) for (t, reason), n in summary.answered_by.most_common() if t is tier]
        table.add_row(tier.value, "all", str(sum(n for _, n in mine)), f"{summary.share(tier):.1%}", style="bold")
        for reason, n in mine:
            table.add_row("", reason.value, str(n), f"{n / summary.answered:.1%}")
    if summary.unanswered:
        table.add_row("nobody", "", str(summary.unanswered), "", style="red")
    return table


def _money(summary: Summary) -> Table:
    """Spend by tier and kind, the all-teacher counterfactual, and the signed difference."""
    table = _table("money", "kind", "USD", title="Money, net of everything it took")
    for (tier, kind), usd in sorted(summary.spend.items()):
        table.add_row(tier.value, kind.value, _usd(usd))
    table.add_row("spent", "", _usd(summary.spent_usd), style="bold")
    table.add_row("teacher alone", "estimate", _usd(summary.counterfactual_usd))
    style = "bold green" if summary.saved_usd >= 0 else "bold red"
    of = f" ({summary.saved_usd / summary.counterfactual_usd:+.1%})" if summary.counterfactual_usd else ""
    table.add_row("saved" if summary.saved_usd >= 0 else "lost", "", f"{summary.saved_usd:+.4f}{of}", style=style)
    return table


def _usd(amount: Decimal) -> str:
    return f"{amount:.4f}"


def _quality(summary: Summary, target: float | None) -> Table:
    """Parity by bundle: audits of different bundles are never added up."""
    wanted = f", wanted {target:.0%}" if target else ""
    table = _table("bundle", "audits", "student served", "unacceptable", "parity", "95% interval")
    table.title = f"Quality, from audits{wanted}"
    for bundle, audits in summary.audits.items():
        found = parity(audits)
        counts = (str(found.audits), str(found.student_served), str(found.unacceptable))
        table.add_row(bundle or BASE, *counts, _share(found.estimate), f"{found.low:.1%} to {found.high:.1%}")
    if not summary.audits:
        table.add_row("no audit with a verdict yet")
    if summary.missed_audits:
        causes = ", ".join(f"{cause} {n}" for cause, n in summary.missed_audits.most_common())
        table.caption, table.caption_justify = f"audits missed: {causes}", "left"
    return table


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _speed(summary: Summary) -> Table:
    table = _table("milliseconds", "p50", "p95", title="Time")
    rows = [(f"{tier.value}, whole answer", summary.seconds[tier]) for tier in Tier]
    rows += [(f"{tier.value}, first token", summary.first_token_seconds[tier]) for tier in Tier]
    for name, values in (*rows, ("overhead", summary.overhead_seconds)):
        if values:
            table.add_row(name, _ms(quantile(values, 0.5)), _ms(quantile(values, 0.95)))
    return table


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:,.1f}"


def _learning(policy: Policy, summary: Summary) -> Text:
    text = Text.assemble(("Learning", "bold"), f"\nescalations {summary.escalations}")
    text.append(f", teacher answers to learn from {summary.trainable}")
    text.append(f" (a round starts at {policy.distil.min_new_records} new ones)")
    if not policy.may_train_on_teacher:
        rights = policy.teacher.training_rights.value
        text.append(
            f"\ntraining on {policy.teacher.model} is {rights}: name it under "
            "teacher.i_have_the_right_to_train_on where you do have the right",
            style="yellow",
        )
    return text


def _date(unix: float) -> str:
    return datetime.fromtimestamp(unix).astimezone().strftime("%Y-%m-%d %H:%M")
