"""A proxy with two clients, each with a key of its own."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.fakes import World, until, world


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world"), client_keys=("sk-mine", "sk-theirs")) as found:
        until(lambda: httpx.get(f"{found.url}/health/ready").json()["policies"][0]["student"]["ready"])
        yield found


@pytest.fixture
def plain(proxy: World) -> None:
    """Both upstreams are as they were."""
    proxy.student.always()
    proxy.teacher.always()
