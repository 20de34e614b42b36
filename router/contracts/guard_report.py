"""What the guard over a policy's live bundle found, as a file beside the bundles: for ``locum status`` and learning.

The records say it too; the file spares its readers the scorer, without which they cannot be read so.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from router.contracts.files import write_atomically

GUARDED = "guarded.json"
CANARY_GUARDED = "guarded-canary.json"
"""The same of the canary: its alarm says nothing of what is live."""


class GuardReport(BaseModel):
    """``lower``, ``estimate`` and ``upper``: the running parity and its bounds, the estimate None where nothing
    was audited. ``alarm``: parity was below its floor, and no threshold is yet known to keep it again. ``alarms``:
    how many ``bundle`` raised; ``changed_at``: when the request came by which any bundle of the policy raised its
    last, unix time, 0 where none did. ``audits``: of ``bundle`` since its last alarm. ``route`` and ``accept`` are
    the thresholds in force, ``wary`` says that more is audited than usual."""

    model_config = ConfigDict(frozen=True)

    bundle: str
    alarm: bool = False
    alarms: int = 0
    changed_at: float = 0.0
    audits: int = 0
    lower: float = 0.0
    estimate: float | None = None
    upper: float = 1.0
    route: float
    accept: float
    wary: bool = False


def read_guarded(folder: Path, file: str = GUARDED) -> GuardReport | None:
    """What was found last of the policy whose bundles are in ``folder``; None where none was guarded yet, or the
    file is damaged: the guard writes it anew."""
    try:
        return GuardReport.model_validate_json((folder / file).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_guarded(folder: Path, found: GuardReport, file: str = GUARDED) -> None:
    """Replaces it atomically. All workers write the same, since all read the same records."""
    write_atomically(folder / file, found.model_dump_json().encode())
