"""A student of every kind, started once; and a tiny random one for what needs no sense, only arithmetic."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from router.engine.base import Engine, VersionPlace
from router.engine.process import ServerProcess
from router.engine.supervisor import Supervisor, engine_of
from router.errors import EngineError
from router.policy.policy import Policy
from router.settings import Settings
from tests.router.conftest import STUDENT


@pytest.fixture(scope="session")
def tiny(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer decoder with the real tokenizer and chat template, as a Hugging Face folder."""
    import torch  # most tests never need it
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer: Any = AutoTokenizer.from_pretrained(str(base))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass
class Student:
    """A student that answers: where, and, where Locum started it, by which engine and supervisor."""

    kind: str
    place: VersionPlace
    client: AsyncOpenAI
    settings: Settings
    engine: Engine | None = None
    supervisor: Supervisor | None = None


def policy_for(kind: str) -> Policy:
    return Policy.model_validate(
        {
            "name": "default",
            "student": {"model": STUDENT, "engine": kind, "usd_per_million": {"input": 0, "output": 0}},
            "teacher": {"model": "t", "url": "http://127.0.0.1:9/v1", "usd_per_million": {"input": 1, "output": 1}},
            "objective": {"student_share": 0.5},
        }
    )


@asynccontextmanager
async def started_here(kind: str, settings: Settings) -> AsyncIterator[Student]:
    policy = policy_for(kind)
    try:
        engine = engine_of(policy, settings)
    except EngineError as e:
        pytest.skip(str(e))
    supervisor = Supervisor(policy, settings, engine, print, grace_seconds=0.5)
    task = asyncio.create_task(supervisor.run())
    try:
        async with asyncio.timeout(300):
            await supervisor.ready.wait()
        place = engine.versions["base"]
        yield Student(kind, place, client_of(place), settings, engine, supervisor)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def by_url(settings: Settings) -> AsyncIterator[Student]:
    """Any OpenAI-compatible server: LOCUM_TEST_STUDENT_URL and _MODEL, else an engine started by hand, in fp32."""
    url = os.environ.get("LOCUM_TEST_STUDENT_URL")
    if url:
        place = VersionPlace(url, os.environ["LOCUM_TEST_STUDENT_MODEL"])
        yield Student("url", place, client_of(place), settings)
        return
    command = [sys.executable, "-m", "router.engine", "--model", STUDENT, "--precision", "fp32"]
    server = ServerProcess("engine", lambda port: [*command, "--port", str(port)], settings.logs / "by-hand.log")
    await server.start()
    try:
        place = VersionPlace(f"{server.url}/v1", "base")
        yield Student("url", place, client_of(place), settings)
    finally:
        await server.stop()


def client_of(place: VersionPlace) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=place.url, api_key="none", max_retries=0, timeout=300)


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["embedded", "llama-server", "url"])
async def student(
    request: pytest.FixtureRequest, cache: Path, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Student]:
    settings = Settings(home=tmp_path_factory.mktemp("home"), cache=cache)
    running = by_url(settings) if request.param == "url" else started_here(request.param, settings)
    async with running as one:
        yield one
