"""Writes the pages that are made from the code: `policy.md` from the policy's schema, `cli.md` from the commands' help,
`map.md` from the packages' docstrings, and `llms.txt`, the list of all pages for language models. `make docs` runs it,
and a test keeps them true."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

from router.cli import whole
from router.policy.policy import json_schema

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs"
Schema = Mapping[str, Any]
PLAIN = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true, false", "object": "mapping"}
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "over", "maximum": "at most", "exclusiveMaximum": "under"}
OFTEN = {"Price": "usd_per_million"}
"""Parts that stand in several places."""
ALWAYS = frozenset({"name", "tasks"})
"""Fields that each judge or method has, told with the first."""
FIRST = {
    "`judge: exact`": "`name` says which judge; a name alone will do where it needs nothing else. `tasks`, on any of "
    "these, maps a task tag (`metadata.task` of a request) to the judge of such requests.",
    "`distil.method: hard-label`": "`name` says which method.",
}


class Policy:
    """The policy's schema, part by part, as Markdown."""

    def __init__(self, schema: Schema) -> None:
        self._schema, self._parts = schema, schema["$defs"]
        self._titles: dict[str, str] = {}

    def page(self) -> str:
        """One section for each part, in the order in which they are met."""
        self._titles = dict(self._met("", self._schema))
        sections = [self._section("The policy", self._schema)]
        sections += [self._section(f"`{title}`", self._parts[part]) for part, title in self._titles.items()]
        return "\n\n".join([INTRODUCTION, *sections]) + "\n"

    def _met(self, where: str, part: Schema) -> Iterator[tuple[str, str]]:
        """Each part below this one, with where it stands; a method or a judge by its name."""
        for field, of in part["properties"].items():
            fresh = [below for below in dict.fromkeys(_refs(of, self._parts)) if below not in self._titles]
            for below in fresh:
                name = self._parts[below]["properties"].get("name", {}).get("const")
                title = OFTEN.get(below, f"{where}{field}" + (f": {name}" if name else ""))
                self._titles[below] = title
                yield below, title
            for below in fresh:
                yield from self._met(f"{self._titles[below].partition(':')[0]}.", self._parts[below])

    def _section(self, title: str, part: Schema) -> str:
        told = [f"## {title}", _prose(part["description"])]
        named = "const" in part["properties"].get("name", {})
        fields = {f: of for f, of in part["properties"].items() if not (named and f in ALWAYS)}
        if title in FIRST:
            told.append(FIRST[title])
        if fields:
            rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
            told.append("\n".join(rows + [self._row(f, of, part) for f, of in fields.items()]))
        return "\n\n".join(told)

    def _row(self, field: str, of: Schema, part: Schema) -> str:
        default = "required" if field in part.get("required", ()) else _default(of)
        cells = (f"`{field}`", self._type(of), default, _prose(of.get("description", "")))
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    def _type(self, of: Schema) -> str:
        if "$ref" in of:
            return self._ref(of["$ref"].rsplit("/", 1)[-1])
        if "anyOf" in of or "oneOf" in of:
            kinds = of.get("anyOf", of.get("oneOf"))
            null = " or null" if {"type": "null"} in kinds and of.get("default") is not None else ""
            kinds = [k for k in kinds if k.get("type") != "null"]
            if {k.get("type") for k in kinds} == {"number", "string"}:
                kinds = [k for k in kinds if k["type"] == "number"]  # a decimal, which may be written either way
            return ", ".join(self._type(k) for k in kinds) + null
        if "enum" in of or "const" in of:
            return ", ".join(f"`{value}`" for value in of.get("enum", [of.get("const")]))
        if of["type"] == "array":
            each = of["items"] if of.get("items") else {}
            return f"list of {self._type(each)}" if each.get("type", "array") != "array" or "$ref" in each else "list"
        bounds = [f"{words} {of[name]:g}" for name, words in BOUNDS.items() if name in of]
        return " ".join([PLAIN[of["type"]], *([", ".join(bounds)] if bounds else [])])

    def _ref(self, part: str) -> str:
        found = self._parts[part]
        if "enum" in found:
            return self._type(found)
        if part == "Judge":
            return "[a judge](#judge-exact)"
        title = self._titles[part]
        anchor = re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-")
        return f"[{title.rpartition(': ')[2]}](#{anchor})"


INTRODUCTION = """# Policy

*Made from the schema by `make docs`.*

A policy file is YAML; `policies/default.yaml` is one. What is not named below is an error, what is left out has its
default. `locum policy check FILE` says what is wrong with it, and `policies/policy.schema.json` tells an editor. A
running proxy takes up a changed file; one that is wrong changes nothing, and `/health/ready` says why."""


def _refs(of: Any, parts: Schema) -> Iterator[str]:
    """The parts that a field may hold, through unions and through names that stand for one."""
    if isinstance(of, dict):
        if "$ref" in of:
            part = of["$ref"].rsplit("/", 1)[-1]
            if "properties" in parts[part]:
                yield part
            elif "enum" not in parts[part]:
                yield from _refs(parts[part], parts)
        for name in ("anyOf", "oneOf", "items", "additionalProperties"):
            yield from _refs(of.get(name), parts)
    elif isinstance(of, list):
        for one in of:
            yield from _refs(one, parts)


def _prose(text: str) -> str:
    """A docstring as one line of Markdown; of several paragraphs each its own."""
    paragraphs = [" ".join(p.split()) for p in text.replace("``", "`").split("\n\n")]
    return "\n\n".join(paragraphs)


def _default(of: Schema) -> str:
    value = of.get("default")
    if isinstance(value, dict):
        return f"`{value['name']}`" if "name" in value else "as below" if value else "none"
    if value is None or value == []:
        return "none"
    return f"`{value if isinstance(value, str) else f'{value:g}' if isinstance(value, float) else json.dumps(value)}`"


def cli_page() -> str:
    command = get_command(whole())
    told = get_docs_for_click(obj=command, ctx=typer.Context(command), name="locum")
    return told.replace("# `locum`\n", "# Commands\n\n*Made from `--help` by `make docs`.*\n", 1).strip() + "\n"


def map_page() -> str:
    """Each package of both sides, by the first words of its docstring."""
    packages = sorted(p.parent for side in ("router", "distiller") for p in (ROOT / side).rglob("__init__.py"))
    rows = [f"| `{p.relative_to(ROOT)}/` | {_first_words(p / '__init__.py')} |" for p in packages]
    words = "Every folder and its one line; each module begins with its own."
    return (
        "\n\n".join(
            [
                "# The map",
                "*Made from the packages' docstrings by `make docs`.*",
                words,
                "\n".join(["| folder | |", "|---|---|", *rows]),
            ]
        )
        + "\n"
    )


def _first_words(path: Path) -> str:
    """The docstring's first paragraph, as Markdown that fits into a table."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return _prose(docstring.split("\n\n")[0]).replace("|", "\\|")


def llms_txt() -> str:
    """Each page's title, place and first words (https://llmstxt.org)."""
    pages = [PAGES / "index.md", *sorted(p for p in PAGES.glob("*.md") if p.name != "index.md")]
    head, *others = [_head(page) for page in pages]
    listed = "\n".join(
        f"- [{title}]({page.name}): {words}" for page, (title, words) in zip(pages[1:], others, strict=True)
    )
    return f"# {head[0]}\n\n> {head[1]}\n\n## Pages\n\n{listed}\n"


def _head(page: Path) -> tuple[str, str]:
    title, *paragraphs = [p for p in page.read_text().split("\n\n") if p.strip()]
    words = next(p for p in paragraphs if p[0].isalnum() or (p[0] in "`*" and not p.startswith("*Made")))
    sentence = re.split(r"(?<=[.?:])\s", " ".join(re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", words).split()))[0]
    return title.removeprefix("# ").strip(), sentence.rstrip(":").replace("**", "")


def main() -> None:
    out = Path(sys.argv[1]) if sys.argv[1:] else PAGES
    (out / "policy.md").write_text(Policy(json.loads(json_schema())).page())
    (out / "cli.md").write_text(cli_page())
    (out / "map.md").write_text(map_page())
    (out / "llms.txt").write_text(llms_txt())


if __name__ == "__main__":
    main()
