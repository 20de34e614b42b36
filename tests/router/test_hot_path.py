"""How deep a request goes: frames of ours from the server's call to the backend's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

import router
from router.backends.openai import OpenAIWire
from tests.fakes import DEADLINE_SECONDS, FakeUpstream, served, world

MOST = 9
HOME = str(Path(router.__file__).parent)


def frames_of_ours() -> list[str]:
    """From the outermost to the caller's caller."""
    found, frame = [], sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        found += [code.co_qualname] if code.co_filename.startswith(HOME) else []
        frame = frame.f_back  # type: ignore[assignment]
    return found[found.index("App.__call__") :: -1]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("tier", ["student", "teacher"])
def test_a_request_passes_few_frames_on_its_way_to_a_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tier: str, *, streamed: bool
) -> None:
    name, seen = ("open" if streamed else "complete"), list[list[str]]()
    asked = getattr(OpenAIWire, name)

    def counted(*given: Any, **more: Any) -> Any:
        seen.append([*frames_of_ours(), asked.__qualname__])
        return asked(*given, **more)

    monkeypatch.setattr(OpenAIWire, name, counted)
    backend = FakeUpstream("both")
    with served(backend) as url:
        place = {"url": f"{url}/v1", "usd_per_million": {"input": 1, "output": 3}}
        with world(tmp_path, student={"model": "both", **place}, teacher={"model": "both", **place}) as proxy:
            body = {"model": f"locum/{tier}", "messages": [{"role": "user", "content": "hi"}], "stream": streamed}
            answer = httpx.post(f"{proxy.url}/v1/chat/completions", json=body, timeout=DEADLINE_SECONDS)
    assert answer.headers["x-locum-tier"] == tier
    assert len(seen[0]) <= MOST, " > ".join(seen[0])
