"""The documents keep to what is there: links lead somewhere, paths exist, README stays short."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from router.policy.policy import json_schema
from router.settings import Limits

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
README_WORDS = 1500
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(
    r"`((?:router|distiller|benchmarks|policies|dashboards|tests|docs|requirements|deploy)/[\w./-]*[\w/])`"
)


def anchors(page: Path) -> set[str]:
    """What can be jumped to: each heading, spelled as GitHub and the site spell it."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


def test_readme_can_be_read_in_a_few_minutes() -> None:
    assert len(README.read_text().split()) <= README_WORDS


def test_every_link_leads_somewhere() -> None:
    broken = []
    for page in PAGES:
        for link in LINK.findall(page.read_text()):
            if "://" in link:
                continue
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert broken == []


def test_every_path_that_is_named_is_there() -> None:
    """Folders and files, by their path from the top."""
    missing = [
        f"{page.relative_to(ROOT)}: {path}"
        for page in PAGES
        for path in PATH.findall(page.read_text())
        if not (ROOT / path).exists() and not (ROOT / f"{path}.py").exists()
    ]
    assert missing == []


def test_every_name_of_the_code_that_is_named_is_there() -> None:
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in PAGES
        for name in re.findall(r"`((?:router|distiller)(?:\.\w+)+)`", page.read_text())
        if not is_there(name)
    ]
    assert missing == []


def is_there(name: str) -> bool:
    """Whether a dotted name is a module's, or that of something in one."""
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.util.find_spec(name) is not None
    module, _, attribute = name.rpartition(".")
    return hasattr(importlib.import_module(module), attribute)


def test_every_field_of_a_policy_says_what_it_means() -> None:
    schema = json.loads(json_schema())
    silent = [
        f"{part}.{field}"
        for part, of in {"Policy": schema, **schema["$defs"]}.items()
        for field, told in of.get("properties", {}).items()
        if "description" not in told and "const" not in told
    ]
    assert silent == []


def test_the_pages_that_are_made_from_the_code_are_what_it_says(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ".ci/pages.py", str(tmp_path)], cwd=ROOT, check=True, timeout=60)
    made = sorted(tmp_path.iterdir())
    assert [page.name for page in made] == ["cli.md", "llms.txt", "map.md", "policy.md"]
    stale = [page.name for page in made if page.read_text() != (ROOT / "docs" / page.name).read_text()]
    assert stale == [], "run `make docs`"


def test_the_list_of_pages_for_language_models_names_each_of_them() -> None:
    named = set(LINK.findall((ROOT / "docs" / "llms.txt").read_text()))
    assert named == {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}


def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    command = [str(Path(sys.executable).parent / "zensical"), "build", "--strict"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = sorted((tmp_path / "site").glob("*.html"))
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} <= {page.stem for page in pages}
    fetched = re.compile(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"']?(?:https?:)?//[^\"' >]+")
    assert [found for page in pages for found in fetched.findall(page.read_text())] == []


def test_every_environment_variable_that_is_read_is_told_and_no_other() -> None:
    """By their names: in the packages, the containers and the units, and the limits', which are made of its fields."""
    name = re.compile(r"LOCUM_[A-Z]+(?:_[A-Z]+)*(?![A-Z_])")
    sources = [*(ROOT / "router").rglob("*.py"), *(ROOT / "distiller").rglob("*.py"), *(ROOT / "deploy").iterdir()]
    sources += [ROOT / "docker-compose.yml", ROOT / "Dockerfile"]
    read = {found for source in sources for found in name.findall(source.read_text())}
    read |= {f"LOCUM_MAX_{field.name.upper()}" for field in dataclasses.fields(Limits)}
    assert set(name.findall((ROOT / "docs" / "operations.md").read_text())) == read


def test_what_the_environment_gives_by_default_is_what_is_told() -> None:
    told = dict(
        re.findall(r"^\| `LOCUM_MAX_(\w+)` \| (\d+) \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    )
    assert told == {f.name.upper(): str(f.default) for f in dataclasses.fields(Limits)}
