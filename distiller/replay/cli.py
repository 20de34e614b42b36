"""``locum replay`` and ``locum tune``: a policy tried on logged traffic, and a threshold picked from it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from router.contracts.bundles import Manifest, read_active, read_manifest
from router.contracts.records import Record
from router.errors import BundleError, LocumError, StoreError
from router.heads.shelf import load_scorer
from router.policy.policy import Policy, load_policy
from router.reports.terminal import Terminal
from router.scoring.scorer import Scorer
from router.scoring.text.encoder import load_encoder
from router.settings import Settings
from router.store.access import reading

if TYPE_CHECKING:
    from distiller.replay.log import LoggedRequest
    from distiller.replay.traffic import Traffic

console = Terminal()
DEFAULT = Path("policies/default.yaml")
LOG = "log"

PolicyFile = Annotated[Path, typer.Option("--policy", "-p", help="Policy file to replay.")]
Source = Annotated[str, typer.Option("--from", help="`log`, or a file of records, one JSON object a line.")]
Since = Annotated[str | None, typer.Option(help="Only requests since: 7d, 12h, or a date such as 2026-01-31.")]
BundleId = Annotated[str | None, typer.Option(help="Replay this bundle's requests; the live one's by default.")]


def replay(
    *,
    policy: PolicyFile = DEFAULT,
    against: Annotated[Path | None, typer.Option(help="A second policy file, replayed beside it.")] = None,
    source: Source = LOG,
    since: Since = None,
    bundle: BundleId = None,
    ahead: Annotated[int, typer.Option("--next", min=1, help="Also tell the next so many requests.")] = 1000,
    out: Annotated[Path | None, typer.Option(help="Folder for replay.html and replay.png.")] = None,
) -> None:
    """Say what a policy would have delivered and cost on logged traffic, with intervals.

    Student share, parity, selective risk, cost and saving, beside random routing at the same share, each
    tier alone and an oracle; and whether routing, the cascade or both together is cheapest at the target.
    With `--out` also as a plot and as a page with a slider for the threshold.
    """
    from distiller.replay.report import outlook_of  # numpy and scikit-learn's scorer
    from distiller.replay.report import replay as replayed
    from distiller.replay.tables import table

    chosen = [load_policy(file) for file in (policy, against) if file]
    log = _Log.read(chosen, source, since, bundle)
    with console.status("trying every threshold"):
        found = replayed(log.traffic(0), chosen[0], log.thresholds, ahead=ahead)
        if against is not None:
            name = chosen[1].name if chosen[1].name != chosen[0].name else against.stem
            found.policies.append(outlook_of(name, log.traffic(1), chosen[1], log.thresholds, ahead=ahead))
    console.print(table(found))
    if out is not None:
        from distiller.replay.page import page
        from distiller.replay.plot import plot

        out.mkdir(parents=True, exist_ok=True)
        (out / "replay.html").write_text(page(found), encoding="utf-8")
        plot(found, out / "replay.png")
        console.print(f"\n{out / 'replay.html'} and {out / 'replay.png'} written")


def tune(
    *,
    policy: PolicyFile = DEFAULT,
    target: Annotated[str, typer.Option(help="parity=0.95, share=0.8 or usd_per_day=25.")] = "parity=0.95",
    confidence: Annotated[float, typer.Option(help="Of a parity target.")] = 0.95,
    source: Source = LOG,
    since: Since = None,
    bundle: BundleId = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be written.")] = False,
) -> None:
    """Pick the threshold that meets a target on logged traffic, and write it into the policy file.

    The rest of the file stays as it is, byte for byte; the reason stands above as a comment.
    """
    from distiller.replay.policy_file import with_threshold, write
    from distiller.replay.target import TuningTarget, tuned

    chosen, wanted = load_policy(policy), TuningTarget.parse(target, confidence)
    log = _Log.read([chosen], source, since, bundle)
    found = tuned(log.traffic(0, by_score=True), chosen, wanted)  # a threshold is what it writes
    text = with_threshold(policy, found.threshold, found.reason)
    console.print(*(f"# {line}" for line in found.reason), sep="\n")
    console.print(f"threshold: {found.threshold:g}", style="bold")
    console.print(*found.outlook, sep="\n", end="\n" if found.outlook else "")
    if dry_run:
        console.print(f"{policy} stays as it is")
    else:
        write(policy, text)
        console.print(f"{policy} written; a running proxy follows it by itself")


class _Log:
    """What was read, and the bundle it is of."""

    def __init__(
        self, rows: list[LoggedRequest], policies: list[Policy], bundle: str | None, settings: Settings
    ) -> None:
        self._rows, self._policies, self._bundle = rows, policies, bundle
        manifest, self._scorer = _bundle(policies[0], bundle, settings)
        self.thresholds = manifest.thresholds if manifest else None

    @classmethod
    def read(cls, policies: list[Policy], source: str, since: str | None, bundle: str | None) -> _Log:
        from distiller.replay.log import read_log
        from distiller.replay.traffic import bundle_of

        settings, name = Settings.from_env(), policies[0].name
        with console.status("reading the log"):
            rows, names = read_log(_records(source, since, settings, name), policies)
        if not rows:
            where = settings.records_db if source == LOG else source
            others = ", ".join(f"{n} ({k:,})" for n, k in names.items() if n != name)
            has = f"; it has records of {others}" if others else ""
            raise StoreError(f"no answered request of policy {name!r} in {where}{' since then' if since else ''}{has}")
        live = read_active(settings.bundles(name)).bundle
        return cls(rows, policies, bundle_of(rows, live, bundle), settings)

    def traffic(self, which: int, *, by_score: bool = False) -> Traffic:
        from distiller.replay.traffic import traffic_of

        policy = self._policies[which]
        return traffic_of(self._rows, which, policy, self._scorer, self._bundle, by_score=by_score)


def _records(source: str, since: str | None, settings: Settings, policy: str) -> Iterator[Record]:
    start = _since(since)
    if source != LOG:
        from distiller.replay.log import read_jsonl

        yield from (record for record in read_jsonl(Path(source)) if record.created_at >= start)
        return
    with reading(settings) as log:
        yield from (record for _, record in log.records(policy, since=start))


def _since(text: str | None) -> float:
    """Unix time of 7d, 12h or a date. Raises LocumError for anything else."""
    if text is None:
        return 0.0
    number, unit = text[:-1], text[-1:]
    if unit in ("d", "h") and number.replace(".", "", 1).isdecimal():
        return time.time() - float(number) * (86_400 if unit == "d" else 3600)
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise LocumError(f"--since {text!r}: say 7d, 12h, or a date such as 2026-01-31") from None


def _bundle(policy: Policy, bundle: str | None, settings: Settings) -> tuple[Manifest | None, Scorer | None]:
    """The bundle's manifest and scorer, None where this home does not (or no longer) have them."""
    if bundle is None:
        return None, None
    folder = settings.bundles(policy.name)
    try:
        manifest = read_manifest(folder, bundle)
    except (OSError, ValidationError):
        return None, None
    try:
        return manifest, load_scorer(folder / bundle, manifest, partial(load_encoder, settings.cache))
    except BundleError as e:
        console.print(f"the answers' confidence cannot be replayed: {e}", style="yellow")
        return manifest, None
