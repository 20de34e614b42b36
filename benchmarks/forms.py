"""What a student's forms save and cost: size on disk, memory, speed through the engine that reads each, agreement.

    python benchmarks/forms.py --out FILE.json [--student FOLDER]

The student is SmolLM2-135M-Instruct (or a Hugging Face folder trained from it), written in every form and served by
the engine that reads it: the embedded one (bf16, int8) and llama-server (q8_0, q4_0). Each answers the same prompts
greedily, one at a time and eight at once. Agreement is with the embedded engine's bf16 answers: the share that is the
same to the last character, and the share of characters before the first difference.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from harness import Row, conditions, write_result
from rich.console import Console
from rich.table import Table
from workload import tasks

from distiller.bundles import StudentFiles
from distiller.evaluation.engine import NAME, serving
from distiller.forms.export import export
from router.contracts.bundles import FormName
from router.contracts.files import weights_of
from router.engine.weights import base_student
from router.policy.engines import ENGINES
from router.settings import Settings

STUDENT = "smollm2-135m-instruct"
OPEN = (
    "Explain in three sentences why the sky is blue.",
    "Write a short, polite message that declines an invitation.",
    "Name the planets of the solar system, in order.",
    "What should one look at when buying a used bicycle?",
    "Tell a story of a lighthouse keeper in five sentences.",
    "How does a refrigerator keep food cold?",
    "List four ways to save water at home.",
    "Summarise the plot of Romeo and Juliet.",
)
TOKENS = 96


@dataclass(frozen=True)
class Asked:
    """What one round of prompts gave: answers, tokens of them, and seconds."""

    answers: list[str]
    tokens: int
    seconds: float

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds


async def ask(url: str, prompts: Sequence[str], at_once: int) -> Asked:
    queue, answers, tokens = iter(enumerate(prompts)), [""] * len(prompts), 0

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:

        async def worker() -> None:
            nonlocal tokens
            for n, prompt in queue:
                said = [{"role": "user", "content": prompt}]
                body = {"model": NAME, "messages": said, "temperature": 0, "max_tokens": TOKENS}
                async with session.post(f"{url}/chat/completions", json=body, raise_for_status=True) as response:
                    found = await response.json()
                answers[n] = found["choices"][0]["message"]["content"] or ""
                tokens += found["usage"]["completion_tokens"]

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(at_once)))
    return Asked(answers, tokens, time.perf_counter() - began)


def resident_mb() -> float:
    """The memory of the engine's process, a child of this one or a child's, the largest of them, in MB."""
    sizes = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if _descends(int(fields["PPid"])) and "VmRSS" in fields:
            sizes.append(int(fields["VmRSS"].split()[0]) / 1024)
    return max(sizes, default=0.0)


def _descends(parent: int) -> bool:
    while parent > 1:
        if parent == os.getpid():
            return True
        try:
            parent = int(Path(f"/proc/{parent}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except FileNotFoundError:
            return False
    return False


@contextmanager
def served(form: FormName, engine: str, student: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """The engine's URL, and what it reads."""
    place = student if form == "bf16" else export(student, form, folder / f"{form}.gguf", STUDENT)
    whole = StudentFiles(student, place) if engine == "llama-server" else StudentFiles(place)
    with serving(whole, engine, folder / "engine.log") as url:
        yield url, place


def measure(form: FormName, engine: str, student: Path, prompts: Sequence[str], rounds: int) -> tuple[Row, list[str]]:
    with tempfile.TemporaryDirectory() as folder, served(form, engine, student, Path(folder)) as (url, place):
        asyncio.run(ask(url, prompts[:8], 8))  # warms up
        one = [asyncio.run(ask(url, prompts, 1)) for _ in range(rounds)]
        eight = [asyncio.run(ask(url, prompts, 8)) for _ in range(rounds)]
        row = {
            "name": form,
            "engine": engine,
            "disk_mb": round(sum(p.stat().st_size for p in weights_of(place)) / 1e6, 1),
            "resident_mb": round(resident_mb(), 0),
            "tokens_per_s": round(max(a.speed for a in one), 1),
            "tokens_per_s_of_8": round(max(a.speed for a in eight), 1),
        }
        return row, one[0].answers


def agreement(answers: Sequence[str], first: Sequence[str]) -> Row:
    pairs = list(zip(answers, first, strict=True))
    shared = [_until_they_part(a, b) / max(1, len(a), len(b)) for a, b in pairs]
    return {
        "same_answers": round(sum(a == b for a, b in pairs) / len(pairs), 3),
        "same_until": round(sum(shared) / len(shared), 3),
    }


def _until_they_part(a: str, b: str) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--student", type=Path, help="a Hugging Face folder trained from SmolLM2-135M-Instruct")
    parser.add_argument(
        "--rounds", type=int, default=3, help="the best of so many is told: the machine does other work"
    )
    args = parser.parse_args()
    student = args.student or base_student(STUDENT, Settings.from_env().cache)
    prompts = [*OPEN, *(f"{t.system}\n{t.prompt}" for t in tasks(24, seed=1))]
    rows, first = [], None
    for engine in ("embedded", "llama-server"):
        for form in ENGINES[engine].forms:
            row, answers = measure(form, engine, student, prompts, args.rounds)
            first = first or answers
            rows.append(row | agreement(answers, first))
            Console().print(rows[-1])
    said = "as packaged" if args.student is None else "distilled"
    write_result(args.out, "forms", conditions(student=f"SmolLM2-135M-Instruct, {said}", prompts=len(prompts)), rows)
    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
