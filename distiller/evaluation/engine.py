"""Starts the engine that will serve, on one student, for the length of an evaluation."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from distiller.bundles import StudentFiles
from distiller.config import EvaluateConfig
from distiller.evaluation.answers import AnswersHere, Asker, StudentQuestion
from router.errors import EngineError
from router.heads.files import load
from router.heads.wire import completion
from router.judges.base import Means
from router.judges.judge import Judges
from router.policy.policy import Policy
from router.scoring.text.encoder import load_encoder
from router.settings import Settings

NAME = "candidate"


@contextmanager
def way_to(
    student: StudentFiles,
    policy: Policy,
    settings: Settings,
    config: EvaluateConfig,
    on_answer: Callable[[int, int], None],
) -> Iterator[Asker]:
    """Where the student answers: an engine started for it, the policy's URL for what stands there already, or here,
    where it is label heads. Raises BundleError where these cannot be read."""
    at = policy.student
    judges = Judges(policy.judge, Means(encoder=lambda: load_encoder(settings.cache)))
    asker = partial(
        Asker,
        in_flight=config.in_flight,
        timeout_seconds=config.answer_seconds,
        accept=policy.accept,
        temperature=at.temperature,
        judges=judges,
        on_answer=on_answer,
    )
    if at.url is not None and student.folder == at.model:
        key = os.environ.get(at.api_key_env) if at.api_key_env else None
        yield asker(at.url, at.model, api_key=key)
        return
    if not at.traits.generates:
        yield asker("", NAME, here=_heads_in(student.folder, settings))
        return
    with serving(student, at.engine, settings.logs / "evaluate.log", config.start_seconds) as url:
        yield asker(url, NAME)


def _heads_in(folder: Path | str, settings: Settings) -> AnswersHere:
    """What label heads answer; to nothing where there are none, as before the first round (``folder`` is a name)."""
    heads = load(folder, partial(load_encoder, settings.cache)) if isinstance(folder, Path) else None

    def answer(question: StudentQuestion, body: Mapping[str, Any]) -> dict[str, Any] | None:
        asked = {**body, "metadata": {"task": question.task or ""}}
        return completion(heads, asked, NAME) if heads is not None else None

    return answer


@contextmanager
def serving(form: StudentFiles, engine: str | None, log: Path, start_seconds: float = 300.0) -> Iterator[str]:
    """Runs the policy's ``engine`` on a student and yields its URL, ending in ``/v1``.

    The student answers to the model name ``candidate``, on a port that the system picks. The engine's
    output goes to ``log``. It is ended, by its process id, however the block is left, and dies with
    this process where that is killed outright. A candidate for a student by URL (``engine`` None) is served by
    the embedded engine: what stands behind the URL is not ours to load weights into.

    Raises:
        EngineError: it ended, or was not ready within ``start_seconds``; the message has its last words.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output, tempfile.TemporaryDirectory() as folder:
        url_file = Path(folder) / "url"
        process = subprocess.Popen(_command(form, engine, url_file), stdout=output, stderr=output)
        try:
            yield f"{_ready(process, url_file, log, start_seconds)}/v1"
        finally:
            _end(process)


def _command(form: StudentFiles, engine: str | None, url_file: Path) -> list[str]:
    tether = [sys.executable, "-m", "router.engine.tether", str(os.getpid())]
    command = [sys.executable, "-m", "router.engine", "--model", str(form.folder), "--name", NAME]
    if engine is not None:
        command += ["--engine", engine, *(("--gguf", str(form.gguf)) if form.gguf else ())]
    return [*tether, *command, "--port", "0", "--url-file", str(url_file)]


def _ready(process: subprocess.Popen[bytes], url_file: Path, log: Path, seconds: float) -> str:
    """The engine's address: its file appears once requests are answered."""
    deadline = time.monotonic() + seconds
    while not url_file.is_file():
        if process.poll() is not None:
            raise EngineError(f"the student's engine ended with code {process.returncode}: {_last_words(log)}")
        if time.monotonic() > deadline:
            raise EngineError(f"the student's engine was not ready after {seconds:.0f} s: {_last_words(log)}")
        time.sleep(0.1)
    return url_file.read_text().strip()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:]) or f"nothing was written to {log}"
