"""What the benchmarks share: a running Locum, a teacher that replays known answers, the result file's shape."""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import yaml
from aiohttp import web

from router.settings import Settings

Body = Mapping[str, Any]
Row = dict[str, Any]


def read_jsonl(path: Path) -> list[Row]:
    """One JSON object a line, gzip or not."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return [json.loads(line) for line in text.split("\n") if line]


class Kind(Protocol):
    """One of the cases that a benchmark goes through, by name."""

    @property
    def name(self) -> str: ...


class KindsParser(argparse.ArgumentParser):
    """The options of a benchmark that goes through ``kinds`` of cases: ``--out``, and ``--only`` for some of them."""

    def __init__(self, benchmark: str, about: str | None, kinds: Sequence[Kind]) -> None:
        super().__init__(
            prog=f"python -m benchmarks.{benchmark}",
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._kinds = kinds
        self.add_argument("--out", type=Path, help="the result file; without it only the table is shown")
        self.add_argument(
            "--only", action="append", default=[], metavar="KIND", help="only this kind; repeat for several"
        )

    def chosen(self, given: Sequence[str] | None = None) -> argparse.Namespace:
        """The options, with the kinds that they choose as ``kinds``. Exits where there are none."""
        args = self.parse_args(given)
        args.kinds = [kind for kind in self._kinds if not args.only or kind.name in args.only]
        if not args.kinds:
            self.error(f"there is no such kind; there are {', '.join(kind.name for kind in self._kinds)}")
        return args


def multiple_choice(row: Row) -> str:
    """A recorded ``question`` with its ``options``, as the prompt of a request."""
    options = "\n".join(f"{chr(65 + i)}. {text}" for i, text in enumerate(row["options"]))
    return f"{row['question']}\n{options}\nAnswer:"


def conditions(**more: Any) -> Row:
    """Where and on what a figure was measured."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        **more,
    }


def write_result(out: Path, benchmark: str, where: Row, rows: Sequence[Row]) -> None:
    """Writes ``{"benchmark", "conditions", "rows"}``, one row a line, so that a diff can be read."""
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    head = json.dumps({"benchmark": benchmark, "conditions": where}, indent=1)[:-2]
    out.write_text(f'{head},\n "rows": [\n{lines}\n ]\n}}\n')


def last_user_text(body: Body) -> str:
    """The text of the request's last user message."""
    return str(next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user"))


@dataclass
class ReplayServer:
    """An OpenAI-compatible server, in a thread, that answers with what ``reply`` returns for a request body.

    It plays a tier whose answers are known. ``reply`` returns the answer's text, or the text and its
    tokens' log-probabilities. Token counts are words and punctuation marks times 1.3: the same rule
    for every tier, stated wherever a figure rests on it.
    """

    name: str
    reply: Callable[[Body], str]
    delay_seconds: float = 0.0
    calls: int = 0
    url: str = field(default="", init=False)

    def __enter__(self) -> ReplayServer:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _serve(self, ready: threading.Event) -> None:
        async def main() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            app = web.Application(client_max_size=64 * 2**20)
            app.router.add_post("/v1/chat/completions", self._chat)
            app.router.add_get("/v1/models", self._models)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}/v1"
            ready.set()
            await self._stop.wait()
            await runner.cleanup()

        asyncio.run(main())

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self.name, "object": "model"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.calls += 1
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        text = self.reply(body)
        prompt = sum(count_tokens(str(m.get("content") or "")) for m in body["messages"])
        output = count_tokens(text)
        usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": self.name}
        if body.get("stream"):
            return await self._stream(request, body, head, text, usage)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})

    async def _stream(self, request: web.Request, body: Body, head: Row, text: str, usage: Row) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)

        async def send(choices: list[Row], **more: Any) -> None:
            chunk = {**head, "object": "chat.completion.chunk", "choices": choices, **more}
            await answer.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

        for at in range(0, len(text), 16):
            delta = {"role": "assistant", "content": text[at : at + 16]}
            await send([{"index": 0, "delta": delta, "finish_reason": None}])
        await send([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        if (body.get("stream_options") or {}).get("include_usage"):
            await send([], usage=usage)
        await answer.write(b"data: [DONE]\n\n")
        return answer


def count_tokens(text: str) -> int:
    """A stated stand-in for a tokenizer: words and punctuation marks, times 1.3."""
    words = "".join(c if c.isalnum() else f" {c} " for c in text).split()
    return max(1, round(1.3 * len(words)))


@dataclass(frozen=True)
class Running:
    """A Locum that answers at ``url`` (with /v1)."""

    url: str
    home: Path
    policy_file: Path
    process: subprocess.Popen[bytes]

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "LOCUM_HOME": str(self.home)}

    @property
    def settings(self) -> Settings:
        return Settings.from_env(self.env)

    def locum(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        """Runs a ``locum`` command against this installation; its output goes to the terminal."""
        return subprocess.run([sys.executable, "-m", "router.cli", *command], env=self.env, check=True)


@contextmanager
def running(
    home: Path,
    policy: Row,
    *others: Row,
    command: str = "up",
    patience_seconds: float = 180,
    env: Mapping[str, str] = {},
) -> Iterator[Running]:
    """Starts ``locum up`` (or ``serve``) on a free port with ``policy`` and ``others``, until it is ready; stops it at
    the end. ``env`` is added to the environment.

    Raises:
        RuntimeError: it ended, or was not ready in time; the message names the log.
    """
    home.mkdir(parents=True, exist_ok=True)
    files = [home / f"{p['name']}.yaml" for p in (policy, *others)]
    for file, declared in zip(files, (policy, *others), strict=True):
        file.write_text(yaml.safe_dump(declared, sort_keys=False))
    log = (home / "locum.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-m", "router.cli", command, *(f"--policy={f}" for f in files), "--port", "0"],
        env={**os.environ, **env, "LOCUM_HOME": str(home)},
        stdout=log,
        stderr=log,
    )
    try:
        waits = all(
            declared["student"].get("engine") != "head" for declared in (policy, *others)
        )  # heads come with a round
        url = asyncio.run(_wait_ready(home, process, patience_seconds, students=waits))
        yield Running(url=f"{url}/v1", home=home, policy_file=files[0], process=process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


async def _wait_ready(home: Path, process: subprocess.Popen[bytes], patience_seconds: float, *, students: bool) -> str:
    deadline = time.monotonic() + patience_seconds
    pointer = home / "run" / "proxy.json"
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline and process.poll() is None:
            if pointer.exists():
                url = str(json.loads(pointer.read_text())["url"]).rstrip("/")
                try:
                    async with session.get(f"{url}/health/ready") as answer:
                        state = await answer.json()
                        ready = not students or all(p["student"]["ready"] for p in state["policies"])
                        if answer.status == 200 and ready:
                            return url
                except aiohttp.ClientError:
                    pass
            await asyncio.sleep(0.2)
    raise RuntimeError(
        f"locum was not ready after {patience_seconds:.0f} s; see {home / 'locum.log'} and {home / 'logs'}"
    )


def in_test_part(key: str, share: float, seed: int) -> bool:
    """A fixed, content-keyed split: the same row lands on the same side in every run with this seed."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 < share
