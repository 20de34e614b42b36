"""``make llama-server``: builds llama.cpp's server from the sources inside the ``llama-cpp-python`` sdist.

Only instruction sets that the processor names are used, one flag each, and never AMX: virtual machines
advertise it where the kernel does not let a program use it, and a native build then dies on its first
product. The result is kept in the cache; a second call does nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from router.engine import cpu
from router.engine.llama_server import binary_path
from router.errors import EngineError, LocumError
from router.settings import Settings

SDIST = "llama-cpp-python==0.3.36"
#: CMake's switch -> the processor's flags that all must be there.
INSTRUCTION_SETS = {
    "GGML_SSE42": {"sse4_2"},
    "GGML_AVX": {"avx"},
    "GGML_AVX2": {"avx2"},
    "GGML_BMI2": {"bmi2"},
    "GGML_FMA": {"fma"},
    "GGML_F16C": {"f16c"},
    "GGML_AVX_VNNI": {"avx_vnni"},
    "GGML_AVX512": {"avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"},
    "GGML_AVX512_VBMI": {"avx512_vbmi2", "avx512vbmi"},
    "GGML_AVX512_VNNI": {"avx512_vnni"},
    "GGML_AVX512_BF16": {"avx512_bf16"},
}
OFF = (
    "GGML_NATIVE",
    "GGML_CCACHE",
    "BUILD_SHARED_LIBS",
    "LLAMA_CURL",
    "LLAMA_OPENSSL",
    "LLAMA_BUILD_TESTS",
    "LLAMA_BUILD_EXAMPLES",
    "LLAMA_USE_PREBUILT_UI",
)
STEP = re.compile(r"^\[\s*(\d+)(?:%|/(\d+))\]")


def cmake_flags(known: frozenset[str]) -> list[str]:
    """CMake's options for a processor with the flags ``known``."""
    sets = [f"-D{switch}={'ON' if needs <= known else 'OFF'}" for switch, needs in INSTRUCTION_SETS.items()]
    return ["-DCMAKE_BUILD_TYPE=Release", *(f"-D{name}=OFF" for name in OFF), *sets]


def build(cache: Path, jobs: int, sdist: Path | None = None) -> Path:
    """Builds the server unless it is there; returns its path.

    Args:
        sdist: a downloaded ``llama-cpp-python`` sdist, for machines without a package index.

    Raises:
        EngineError: a tool is missing, or a step failed; the message says which.
    """
    out = binary_path(cache)
    if os.access(out, os.X_OK):
        print(f"llama-server is there already: {out}")
        return out
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            raise EngineError(f"building llama-server needs {tool}: install a C++ compiler and cmake")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="llama-", dir=out.parent.parent) as folder:
        work = Path(folder)
        source = _extract(sdist or _download(work), work)
        print("configuring", flush=True)
        into = work / "build"
        _checked(["cmake", "-S", str(source), "-B", str(into), *cmake_flags(cpu.flags())], "cmake's configuration")
        _compile(into, jobs)
        built = into / "bin" / "llama-server"
        _checked([str(built), "--version"], "the new llama-server")
        shutil.move(built, out)
    print(f"llama-server is ready: {out}")
    return out


def _download(work: Path) -> Path:
    """Fetches the sdist through pip, so from whatever index the machine is set up for."""
    print(f"fetching the sources inside {SDIST}", flush=True)
    package = SDIST.partition("==")[0]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    _checked([*pip, "--no-deps", "--no-binary", package, "--dest", str(work), SDIST], "pip")
    found = sorted(work.glob("*.tar.gz"))
    if not found:
        raise EngineError(f"pip fetched no sdist of {SDIST}")
    return found[0]


def _extract(sdist: Path, work: Path) -> Path:
    try:
        with tarfile.open(sdist) as archive:
            archive.extractall(work / "sources", filter="data")
    except (OSError, tarfile.TarError) as e:
        raise EngineError(f"cannot read {sdist}: {e}") from e
    found = sorted((work / "sources").glob("*/vendor/llama.cpp/CMakeLists.txt"))
    if not found:
        raise EngineError(f"{sdist.name} does not hold llama.cpp's sources")
    return found[0].parent


def _compile(build: Path, jobs: int) -> None:
    from rich.progress import Progress

    command = ["cmake", "--build", str(build), "--target", "llama-server", "--parallel", str(jobs)]
    lines: list[str] = []
    with (
        Progress() as progress,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        task = progress.add_task("compiling llama-server", total=100)
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            step = STEP.match(line)
            if step:
                progress.update(task, completed=100 * int(step[1]) / int(step[2] or 100))
    if process.returncode:
        raise EngineError("compiling llama-server failed:\n" + "".join(lines[-20:]))


def _checked(command: Sequence[str], what: str) -> None:
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if ran.returncode:
        last = "\n".join(ran.stdout.strip().splitlines()[-20:])
        raise EngineError(f"{what} ended with code {ran.returncode}:\n{last}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Build llama.cpp's server for `engine: llama-server`.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sdist", type=Path, help="a downloaded llama-cpp-python sdist, where there is no index")
    given = parser.parse_args()
    try:
        build(Settings.from_env().cache, given.jobs, given.sdist)
    except LocumError as e:
        parser.exit(1, f"locum: {e}\n")


if __name__ == "__main__":
    main()
