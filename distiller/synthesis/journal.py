"""Every paid call of a run, written down before it is made and after: a killed run pays for none twice."""

from __future__ import annotations

import json
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

from router.contracts.records import Usage
from router.paid import Completion


class Journal:
    """A file of JSON lines. ``spent`` is what the calls in it cost. ``lost`` are those that may have been paid and of
    which no answer is there: begun and never ended, or ended so that nobody knows. They count with what was held."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._ended: dict[str, Completion] = {}
        held: dict[str, Decimal] = {}
        lost: set[str] = set()
        self.spent = Decimal(0)
        for line in _read(path):
            if "held" in line:
                held[line["call"]] = Decimal(line["held"])
                continue
            held.pop(line["call"], None)
            self.spent += Decimal(line["usd"])
            if "message" in line:
                self._ended[line["call"]] = _completion(line)
            elif Decimal(line["usd"]):
                lost.add(line["call"])
        self.lost = frozenset(lost.union(held))
        self.spent += sum(held.values(), Decimal(0))
        self._file = path.open("ab", buffering=0)

    def known(self, call: str) -> Completion | None:
        """What the call said, where it was made before."""
        return self._ended.get(call)

    def begins(self, call: str, held: Decimal) -> None:
        self._write({"call": call, "held": str(held)})

    def ended(self, call: str, found: Completion, usd: Decimal) -> None:
        self._ended[call] = found
        usage = None if found.usage is None else asdict(found.usage)
        told = {"message": found.message, "finish_reason": found.finish_reason, "usage": usage}
        self._write({"call": call, "usd": str(usd), **told})

    def failed(self, call: str, usd: Decimal) -> None:
        """``usd`` is 0 where it surely cost nothing; such a call may be made again."""
        self._write({"call": call, "usd": str(usd)})

    def close(self) -> None:
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        """On a line of its own, whole: one that a kill cut off spoils no other."""
        self._file.write(b"\n" + json.dumps(line, ensure_ascii=False).encode())


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = []
    for line in path.read_bytes().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def _completion(line: dict[str, Any]) -> Completion:
    usage = line["usage"]
    return Completion(
        line["message"], line["finish_reason"], None if usage is None else Usage(**usage), Decimal(line["usd"])
    )
