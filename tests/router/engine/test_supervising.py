"""Which students a supervisor has loaded, in which form, and what it refuses: on an engine that loads nothing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from router.contracts.bundles import StudentRef, activate, begin_canary, end_canary, read_active
from router.contracts.files import sha256_of
from router.engine.base import Version, VersionPlace
from router.engine.supervisor import FAILURES, Supervisor
from router.errors import EngineError
from router.settings import Settings
from tests.manifests import complete
from tests.router.engine.conftest import policy_for


class Shelf:
    """An engine that notes what it was asked to load; ``bad`` versions it cannot."""

    def __init__(self) -> None:
        self.loaded: dict[str, Version] = {}
        self.bad: set[str] = set()
        self.dying: frozenset[str] = frozenset()
        self.pids: Mapping[str, int] = {}

    @property
    def versions(self) -> Mapping[str, VersionPlace]:
        return {name: VersionPlace("http://nowhere/v1", name) for name in self.loaded}

    async def load(self, version: Version) -> None:
        if version.name in self.bad:
            raise EngineError("it does not fit")
        self.loaded[version.name] = version

    async def unload(self, name: str) -> None:
        self.loaded.pop(name, None)

    async def lost(self) -> frozenset[str]:
        gone, self.dying = self.dying, frozenset()
        for name in gone:
            self.loaded.pop(name, None)
        return gone

    async def stop(self) -> None:
        self.loaded = {}


def bundle(settings: Settings, name: str, **student: Any) -> Path:
    """A bundle with weights of a few bytes, in all forms."""
    home = settings.bundles("default") / name
    for path in ("student/model.safetensors", "student.int8/int8.safetensors", "student.gguf"):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(f"{name} {path}".encode())
    weights = StudentRef(model="m", path="student", gguf="student.gguf", **student)
    return complete(settings.bundles("default"), name, student=weights)


def supervisor(settings: Settings, engine: Shelf, kind: str = "embedded") -> tuple[Supervisor, list[str]]:
    said: list[str] = []
    return Supervisor(policy_for(kind), settings, engine, said.append, grace_seconds=0), said


async def test_the_form_that_the_gate_judged_is_loaded_once_its_bytes_are_checked(tmp_path: Path) -> None:
    settings, engine = Settings(home=tmp_path), Shelf()
    eight = bundle(settings, "b0") / "student.int8" / "int8.safetensors"
    home = bundle(settings, "b0", int8="student.int8", sha256="another's", exports={"student.int8": sha256_of([eight])})
    activate(settings.bundles("default"), "b0")
    watching, said = supervisor(settings, engine)
    await watching.tick()
    assert engine.loaded["b0"].folder == home / "student.int8"
    engine.loaded.clear()
    eight.write_bytes(b"something else")
    again, said = supervisor(settings, engine)
    await again.tick()
    assert "b0" not in engine.loaded
    assert any("not those its manifest names" in line and "student.int8" in line for line in said)


async def test_llama_servers_file_is_checked_too_and_an_old_bundles_weights_are_as_before(tmp_path: Path) -> None:
    settings, engine = Settings(home=tmp_path), Shelf()
    home = bundle(settings, "b0")
    bundle(settings, "b0", exports={"student.gguf": sha256_of([home / "student.gguf"])})
    old = bundle(settings, "old")
    bundle(settings, "old", sha256=sha256_of([old / "student" / "model.safetensors"]))
    folder = settings.bundles("default")
    activate(folder, "old")
    activate(folder, "b0")
    watching, said = supervisor(settings, engine, "llama-server")
    await watching.tick()
    assert set(engine.loaded) == {"b0", "old"}
    assert engine.loaded["b0"].gguf == home / "student.gguf"
    engine.loaded.clear()
    (home / "student.gguf").write_bytes(b"torn")
    (old / "student" / "model.safetensors").write_bytes(b"torn")
    again, said = supervisor(settings, engine, "llama-server")
    await again.tick()
    assert not engine.loaded and len(said) == 2


async def test_a_run_file_that_is_deleted_with_the_home_is_written_again_once_it_can_be(tmp_path: Path) -> None:
    settings, engine = Settings(home=tmp_path / "home"), Shelf()
    watching, _ = supervisor(settings, engine)
    await watching.tick()
    file = settings.run / "default.student.json"
    said = file.read_bytes()
    shutil.rmtree(settings.home)
    settings.home.mkdir()
    settings.run.write_text("in the way")
    await watching.tick()
    settings.run.unlink()
    await watching.tick()
    assert file.read_bytes() == said


async def test_a_canary_is_loaded_beside_what_is_live_in_the_place_of_what_was_before(tmp_path: Path) -> None:
    settings, engine = Settings(home=tmp_path), Shelf()
    for name in ("b0", "b1", "b2"):
        bundle(settings, name)
    folder = settings.bundles("default")
    activate(folder, "b0")
    activate(folder, "b1")
    watching, _ = supervisor(settings, engine)
    await watching.tick()
    assert set(engine.loaded) == {"b0", "b1"}
    begin_canary(folder, "b2")
    await watching.tick()
    await watching.tick()
    assert set(engine.loaded) == {"b1", "b2"}, "two at most"
    end_canary(folder, "b2", kept=True, reasons=())
    await watching.tick()
    assert set(engine.loaded) == {"b1", "b2"}, "what was live stays for an instant rollback"


async def test_a_canary_whose_engine_dies_three_times_is_rolled_back(tmp_path: Path) -> None:
    settings, engine = Settings(home=tmp_path), Shelf()
    for name in ("b1", "b2"):
        bundle(settings, name)
    folder = settings.bundles("default")
    activate(folder, "b1")
    begin_canary(folder, "b2")
    watching, said = supervisor(settings, engine)
    for _ in range(FAILURES):
        assert read_active(folder).canary is not None
        engine.dying = frozenset({"b2"})
        await watching.tick()
    ended = read_active(folder).ended
    assert ended is not None and not ended.kept and "its engine failed 3 times" in ended.reasons[0]
    assert any("the canary b2 is rolled back" in line for line in said)
    assert read_active(folder).bundle == "b1"
