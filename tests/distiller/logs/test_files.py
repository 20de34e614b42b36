from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distiller.logs.calls import SkipReason
from distiller.logs.files import MOST_BYTES, Content, LogFile
from router.errors import DatasetError

ROWS = [{"n": i, "text": 'a "quoted" } brace \\ and ] more'} for i in range(5)]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


def read(path: Path) -> list[Content]:
    file = LogFile(path)
    found = [line.content for line in file.lines()]
    file.close()
    return found


def plain(found: list[Content]) -> list[object]:
    return [json.loads(one) if isinstance(one, bytes) else one for one in found]


@pytest.mark.parametrize(
    "content",
    [
        LINES,
        b"\xef\xbb\xbf" + LINES,
        LINES.replace(b"\n", b"\r\n"),
        LINES.replace(b"\n", b"\n\n   \n"),
        LINES.rstrip(),
        json.dumps(ROWS).encode(),
        json.dumps(ROWS, indent=2).encode(),
        b"\xef\xbb\xbf\n  " + json.dumps(ROWS, indent=2).encode(),
        b"\n".join(json.dumps(row, indent=2).encode() for row in ROWS),
        b"".join(b"[" + json.dumps(row).encode() + b"]\n" for row in ROWS),
    ],
)
def test_objects_are_found_however_they_are_laid_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    assert plain(read(path)) == ROWS
    path.write_bytes(gzip.compress(content))
    assert plain(read(path)) == ROWS


def test_standard_input_is_read(tmp_path: Path) -> None:
    code = "from distiller.logs.files import *; print(len(list(LogFile(STDIN).lines())))"
    for content in (LINES, gzip.compress(LINES)):
        found = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=True)
        assert found.stdout.split() == [b"5"]


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for content in (b"", b"\n\n", b"[]", gzip.compress(b"")):
        path.write_bytes(content)
        assert read(path) == []


def test_tables_are_read_by_their_first_row(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    for sign, end in ((",", "\n"), (";", "\r\n"), ("\t", "\n")):
        rows = [
            f"text{sign}label",
            f'"two{sign}\nlines ""so"""{sign}a',
            f"short{sign}b",
            sign,
            f"x{sign}y{sign}z{sign}{sign}",
        ]
        path.write_bytes(b"\xef\xbb\xbf" + (end.join(rows)).encode())
        first, second, last = read(path)
        assert isinstance(first, dict)
        assert first["text"].replace("\r", "") == f'two{sign}\nlines "so"'
        assert second == {"text": "short", "label": "b"}
        assert last is SkipReason.BROKEN


def test_a_packed_file_that_was_cut_keeps_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl.gz"
    packed = gzip.compress(
        b"".join(json.dumps({"n": i, "x": os.urandom(30).hex()}).encode() + b"\n" for i in range(9999))
    )
    path.write_bytes(packed[: len(packed) // 2])
    found = read(path)
    assert len(found) > 1000
    assert found[-1] is SkipReason.BROKEN


def test_an_array_that_was_cut_keeps_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_bytes(json.dumps(ROWS).encode()[:-20])
    assert plain(read(path)) == [*ROWS[:4], SkipReason.BROKEN]


def test_a_line_beyond_all_measure_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with path.open("wb") as file:
        file.write(LINES)
        for _ in range(MOST_BYTES // 2**20 + 1):
            file.write(b"x" * 2**20)
        file.write(b"\n" + LINES)
    found = read(path)
    assert plain(found[:5]) == plain(found[6:]) == ROWS
    assert found[5] is SkipReason.TOO_LONG


@pytest.mark.parametrize("content", [b"\xff\xfe{\x00}\x00", b"PK\x03\x04\x00\x00\x00", b"\x00\x01\x02"])
def test_what_is_no_text_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="no UTF-8 text"):
        LogFile(path)


def test_what_cannot_be_read_is_told_with_its_name(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.jsonl"):
        with pytest.raises(DatasetError, match=str(path)):
            LogFile(path)


def test_offset_and_digest_say_how_far_one_is(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(LINES)
    file = LogFile(path)
    seen = [(line.end, file.digest) for line in file.lines()]
    assert seen[-1][0] == len(LINES)
    assert len({digest for _, digest in seen}) == len(ROWS)
    path.write_bytes(LINES + LINES)
    longer = LogFile(path)
    assert [(line.end, longer.digest) for line in longer.lines()][: len(ROWS)] == seen
