"""llama-server and the embedded engine on equal weights, and what both are asked.

    python -m tests.router.engine.pairs tests/golden/engines.json

records what both say to it, byte for byte, for where there is no llama-server.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from distiller.bundles import StudentFiles
from distiller.evaluation.engine import NAME, serving
from distiller.forms.export import export
from distiller.forms.gguf import STATED, _copy_metadata
from router.engine.llama_server import find_binary
from router.engine.model import Model
from router.engine.scheduler import Scheduler
from router.engine.server import EngineServer
from router.engine.weights import base_student
from router.settings import Settings
from tests.fakes import served
from tests.router.conftest import STUDENT

CAPITAL = [{"role": "user", "content": "What is the capital city of France? Answer in English."}]
COLOURS = [{"role": "user", "content": "Name three colours."}]
PARROTS = [{"role": "user", "content": "Repeat exactly: 🦜🦜 日本"}]
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "colour", "schema": SCHEMA}}
CASES: Mapping[str, Mapping[str, Any]] = {
    "ends by itself": {"messages": CAPITAL},
    "cut": {"messages": COLOURS, "max_tokens": 5},
    "a stop string within a token": {"messages": CAPITAL, "stop": ["capital"]},
    "a stop string of its own token": {"messages": COLOURS, "stop": ["\n"]},
    "a stop string that only begins": {"messages": CAPITAL, "stop": ["capital of Sweden"]},
    "several": {"messages": CAPITAL, "n": 2},
    "characters of several tokens": {"messages": PARROTS},
    "a form": {"messages": COLOURS, "response_format": FORM, "max_tokens": 60},
}


def body_of(case: str, *, stream: bool) -> dict[str, Any]:
    """As the proxy asks an engine for it; of the likeliest tokens the first, which greedily is the token itself."""
    body = {"temperature": 0, "max_tokens": 24, "logprobs": True, "top_logprobs": 1, **CASES[case]}
    return body | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})


def answer(url: str, case: str, *, stream: bool) -> str:
    """What an engine answers, as it came."""
    body = body_of(case, stream=stream) | {"model": NAME}
    said = httpx.post(f"{url}/chat/completions", json=body, timeout=300)
    assert said.status_code == 200, said.text
    return said.text


@contextmanager
def both(folder: Path, settings: Settings) -> Iterator[dict[str, str]]:
    """Their URLs: ``llama-server`` on the base student's GGUF, ``whole`` on the same weights in float32, and
    ``embedded``, by torch in float32, on those weights too. Raises EngineError where there is no llama-server."""
    find_binary(settings.cache)
    gguf = export(base_student(STUDENT, settings.cache), "q8_0", folder / "student.gguf", STUDENT)
    unpacked, whole = _unpacked(gguf, folder / "student"), _whole(gguf, folder / "whole.gguf")
    scheduler = Scheduler()
    scheduler.add(Model.load(NAME, unpacked, "fp32"))
    scheduler.start()
    try:
        with (
            served(EngineServer(scheduler, settings.cache, "fp32").app()) as embedded,
            serving(StudentFiles(unpacked, gguf), "llama-server", folder / "log") as quantised,
            serving(StudentFiles(unpacked, whole), "llama-server", folder / "log") as exact,
        ):
            yield {"embedded": f"{embedded}/v1", "llama-server": quantised, "whole": exact}
    finally:
        scheduler.stop()


def _unpacked(gguf: Path, out: Path) -> Path:
    """A GGUF's weights in float32, exactly, as a Hugging Face folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    exact = GgufConfig(dequantize=True)
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, quantization_config=exact, dtype=torch.float32
    )
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(out)
    return out


def _whole(source: Path, out: Path) -> Path:
    """A GGUF's weights in float32 as another: llama.cpp rounds what it multiplies with quantised ones, too."""
    import gguf

    read = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, str(read.fields["general.architecture"].contents()), use_temp_file=True)
    _copy_metadata(read, writer, STATED)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in read.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def recorded(urls: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every case, whole and streamed, from each engine; streams of several choices are the teacher's."""
    return [
        {"case": case, "stream": stream, "said": {name: answer(url, case, stream=stream) for name, url in urls.items()}}
        for case in CASES
        for stream in ((False,) if "n" in CASES[case] else (False, True))
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, both(Path(folder), Settings.from_env()) as urls:
        Path(sys.argv[1]).write_text(json.dumps(recorded(urls), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
