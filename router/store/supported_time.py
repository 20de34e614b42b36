"""The time that retention goes by: the clock's, but where it leaps; no texts are lost to a machine that woke up in
another year.

A file remembers until when time was supported, and what the machine's own counter said then. Time goes on from there by
that counter, which no one sets. A clock that is within a day of it is right, and is followed. One that is further
ahead or behind is believed once it was so for three days that were observed, however many processes looked.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable

DAY_SECONDS = 86_400.0
DOUBTED_SECONDS = 3 * DAY_SECONDS

SCHEMA = """
CREATE TABLE IF NOT EXISTS supported_time (
    only INTEGER PRIMARY KEY CHECK (only = 0),
    at REAL NOT NULL,
    uptime REAL NOT NULL,
    doubted REAL
);
"""
_KNOWN = "SELECT at, uptime, doubted FROM supported_time"
_KEEP = "INSERT OR REPLACE INTO supported_time VALUES (0, ?, ?, ?)"


def machine_uptime() -> float:
    """Seconds that the machine is up, asleep or not: the same for all its processes, and nobody's to set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


class SupportedTime:
    """``clock`` tells the unix time. A file of ``SCHEMA`` that is new to this knows of nothing later than ``newest``, a
    query for one unix time or NULL. ``look`` comes first."""

    def __init__(self, newest: str, clock: Callable[[], float], uptime: Callable[[], float] = machine_uptime) -> None:
        self._newest, self._clock, self._uptime = newest, clock, uptime
        self._at: float | None = None
        self._seen_up = 0.0
        self._doubted: float | None = None

    def look(self, db: sqlite3.Connection) -> None:
        """Takes note of what the file knows, and of the time that was observed since."""
        up, now = self._uptime(), self._clock()
        if (known := db.execute(_KNOWN).fetchone()) is None:
            newest = db.execute(self._newest).fetchone()[0]
            known = (now if newest is None else min(newest, now), up, None)
        at, before, doubted = known
        observed = up - before if up >= before else up  # it was started anew in between, at least so long ago
        at, doubted = at + observed, 0.0 if doubted is None else doubted + observed
        if abs(now - at) <= DAY_SECONDS or doubted >= DOUBTED_SECONDS:
            at, doubted = now, None
        self._at, self._seen_up, self._doubted = at, up, doubted

    def keep(self, db: sqlite3.Connection) -> None:
        """Has the file remember it."""
        db.execute(_KEEP, (self._at, self._seen_up, self._doubted))

    @property
    def now(self) -> float:
        """Unix time that both the clock and what was observed support: what is young by either of them is young."""
        return min(self._clock(), self._clock() - self._ahead())

    @property
    def believed(self) -> bool:
        """Whether the clock is right by what was observed."""
        return abs(self._ahead()) <= DAY_SECONDS

    @property
    def behind(self) -> float:
        """Seconds that a clock which is not believed lies behind; 0 where it does not."""
        return 0.0 if self.believed else max(0.0, -self._ahead())

    @property
    def problem(self) -> str:
        """For people; empty where the clock is believed."""
        if self.believed:
            return ""
        ahead, left = self._ahead(), DOUBTED_SECONDS - (self._doubted or 0.0)
        way = "ahead of" if ahead > 0 else "behind"
        return (
            f"the clock says {_date(self._clock())}, {abs(ahead) / DAY_SECONDS:.1f} days {way} what the log and the "
            f"time since support ({_date(self._clock() - ahead)}): nothing is deleted by it. If it is wrong, set it "
            f"right; if it is right, it is believed after {max(left, 0) / 3600:.0f} h more of running"
        )

    def _ahead(self) -> float:
        if self._at is None:
            return 0.0
        return self._clock() - (self._at + self._uptime() - self._seen_up)


def _date(at: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
    except (OverflowError, ValueError, OSError):
        return f"{at:.0f} s since 1970"
