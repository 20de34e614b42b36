"""Files of logs as their lines: JSON lines, one JSON array, objects over several lines, or CSV; packed or not.

What is held is one line at a time. The offset and the digest behind each tell how far one is, so that whoever was cut
off can go on, and can tell that it is the same file.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from distiller.logs.calls import SkipReason
from router.errors import DatasetError

STDIN = Path("-")
MOST_BYTES = 32 * 2**20
"""Of one line: as much as a proxy takes of one request."""
HEAD_BYTES = 64 * 2**10
PIECE_BYTES = 2**20
NAMING_BYTES = 4096
"""Of its beginning, by which a file is known again once it has grown."""
_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+(?P<end>"?)|[{}\[\]]', re.DOTALL)
_BETWEEN = re.compile(rb"[\s,\[\]]*+")

Content = bytes | dict[str, str] | SkipReason


@dataclass(frozen=True, slots=True)
class Line:
    """One line, object or row, or why it is none. ``end`` is the offset behind it in the unpacked file."""

    content: Content
    end: int


class LogFile:
    """A file of somebody's log. ``digest`` is over all lines so far; ``head`` tells files apart, whatever their names;
    ``done`` and ``size`` are bytes as they lie there, ``size`` 0 where nobody knows.

    Raises:
        DatasetError: it cannot be read, or is no text.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._raw = sys.stdin.buffer if path == STDIN else path.open("rb")
            self.size = 0 if path == STDIN else path.stat().st_size
            raw = cast(Any, io.BufferedReader(cast(Any, _Counted(self._raw)), HEAD_BYTES * 2))
            self._counted = raw.raw
            packed = raw.peek(2)[:2] == _GZIP
            self._file: Any = (
                io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=raw)), HEAD_BYTES * 2) if packed else raw
            )
            head = self._file.peek(HEAD_BYTES)[:HEAD_BYTES]
        except (OSError, EOFError) as e:
            raise unreadable(path, e) from e
        if head[:2] in _WIDE or b"\x00" in head[:1024]:
            raise DatasetError(
                f"{path} is no UTF-8 text: convert it first (iconv -f utf-16 -t utf-8), or name another file"
            )
        self._hash = hashlib.blake2b(digest_size=16)
        self._end = 0
        self.head = hashlib.blake2b(head[:NAMING_BYTES], digest_size=16).hexdigest()
        self._lines = _kind_of(head.removeprefix(_BOM), path)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    @property
    def end(self) -> int:
        """Behind the last line that was read, in the unpacked file."""
        return self._end

    @property
    def done(self) -> int:
        return int(self._counted.count)

    def lines(self) -> Iterator[Line]:
        """Each line that holds anything. A file that breaks off (packed, and cut) ends with a line that says so."""
        try:
            yield from self._lines(self)
        except (EOFError, gzip.BadGzipFile, OSError) as e:
            if isinstance(e, OSError) and not isinstance(e, gzip.BadGzipFile):
                raise unreadable(self.path, e) from e
            yield Line(SkipReason.BROKEN, self._end)

    def close(self) -> None:
        self._file.close()

    # ---- the kinds of files ----

    def json_lines(self) -> Iterator[Line]:
        while (line := self._line()) is not None:
            if isinstance(line, SkipReason) or line.strip():
                yield Line(line if isinstance(line, SkipReason) else line.strip(), self._end)

    def rows(self) -> Iterator[Line]:
        """CSV by its first row's names; a row may go over several lines."""
        csv.field_size_limit(MOST_BYTES)
        rows = csv.reader(self._texts(), dialect=self._dialect())
        names = [name.strip() for name in next(rows, [])]
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error:
                yield Line(SkipReason.BROKEN, self._end)
                continue
            if any(cell.strip() for cell in row):
                whole = len(row) <= len(names)
                yield Line(dict(zip(names, row, strict=False)) if whole else SkipReason.BROKEN, self._end)

    def objects(self) -> Iterator[Line]:
        """The elements of an array, or objects one after the other, however they are laid out."""
        buffer, start, at_end = b"", 0, False
        while True:
            start = _BETWEEN.match(buffer, start).end()  # type: ignore[union-attr]  # it matches nothing, too
            end = _object_end(buffer, start)
            if end > 0:
                self._take(buffer[start:end], end - start)
                yield Line(buffer[start:end], self._end)
                start = end
                continue
            if at_end or len(buffer) - start > MOST_BYTES:
                break
            more = self._file.read(max(PIECE_BYTES, len(buffer) - start))
            buffer, start, at_end = (buffer[start:] + more).removeprefix(_BOM), 0, not more
        if buffer[start:].strip():
            yield Line(SkipReason.BROKEN if at_end else SkipReason.TOO_LONG, self._end)

    def _dialect(self) -> type[csv.Dialect]:
        head = self._file.peek(HEAD_BYTES)[:HEAD_BYTES].split(b"\n")[0]

        class Dialect(csv.excel):
            delimiter = max(",;\t", key=lambda sign: head.count(sign.encode()))

        return Dialect

    def _texts(self) -> Iterator[str]:
        while (line := self._line()) is not None:
            if not isinstance(line, SkipReason):
                yield line.decode("utf-8", "replace").replace("\x00", "")

    def _line(self) -> bytes | SkipReason | None:
        """The next line with its end; None behind the last. What is too long is read over."""
        line: bytes = self._file.readline(MOST_BYTES + 1)
        if not line:
            return None
        first, long = not self._end, len(line) > MOST_BYTES
        self._take(line, len(line))
        while long and not line.endswith(b"\n") and (line := self._file.readline(PIECE_BYTES)):
            self._take(line, len(line))
        return SkipReason.TOO_LONG if long else line.removeprefix(_BOM) if first else line

    def _take(self, data: bytes, size: int) -> None:
        self._hash.update(data)
        self._end += size


class _Counted(io.RawIOBase):
    """A stream that tells how much of it was read."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self.count = raw, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)

    def close(self) -> None:
        if self._raw is not sys.stdin.buffer:
            self._raw.close()
        super().close()


def unreadable(path: Path, error: Exception) -> DatasetError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return DatasetError(f"cannot read {path}: {why}")


def _kind_of(head: bytes, path: Path) -> Callable[[LogFile], Iterator[Line]]:
    start = head.lstrip()
    if start[:1] == b"[":
        return LogFile.objects
    if start[:1] == b"{":
        first = start.split(b"\n", 1)[0].strip()
        laid_out = first in (b"{", b"") or (len(first) < 200 and first.count(b"{") > first.count(b"}"))
        return LogFile.objects if laid_out and b"\n" in start else LogFile.json_lines
    names = start.split(b"\n", 1)[0]
    is_table = path.name.removesuffix(".gz").endswith((".csv", ".tsv"))
    return LogFile.rows if is_table or any(sign in names for sign in (b",", b";", b"\t")) else LogFile.json_lines


def _object_end(buffer: bytes, start: int) -> int:
    """Where the object that begins at ``start`` ends; -1 where it goes on behind the buffer."""
    depth = 0
    for token in _TOKENS.finditer(buffer, start):
        sign = token[0][:1]
        if sign == b'"':
            if not token["end"]:
                return -1
        elif sign in b"{[":
            depth += 1
        else:
            depth -= 1
            if depth <= 0:
                return token.end()
    return -1
