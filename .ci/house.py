"""Measures of the tree: ``python .ci/house.py [CHECKOUT]`` counts in this checkout, or in another one.

How deep a request goes is no matter of counting: ``tests/router/test_hot_path.py`` holds it to nine frames.
"""

from __future__ import annotations

import ast
import statistics
import sys
from pathlib import Path

import grimp

PACKAGES = ("router", "distiller")
SLIVER_LINES = 50


def siblings(package: Path) -> str:
    """What stands side by side at the top of a package."""
    modules = [p for p in package.glob("*.py") if p.name != "__init__.py"]
    folders = [p for p in package.iterdir() if (p / "__init__.py").is_file()]
    return f"{len(modules)} modules, {len(folders)} packages"


def circles(graph: grimp.ImportGraph, package: str) -> list[str]:
    """Pairs of siblings in or below a package that reach each other by what they import of each other."""
    inside = sorted(graph.find_children(package))
    reached = {one: {b for b in inside if b != one and _imports(graph, one, b)} for one in inside}
    for via in inside:
        for one in inside:
            if via in reached[one]:
                reached[one] |= reached[via]
    found = [f"{a} <-> {b}" for a in inside for b in inside if a < b and b in reached[a] and a in reached[b]]
    return found + [circle for child in inside for circle in circles(graph, child)]


def _imports(graph: grimp.ImportGraph, one: str, other: str) -> bool:
    return graph.direct_import_exists(importer=one, imported=other, as_packages=True)


def doubled(files: list[Path]) -> list[str]:
    """Public classes' names that are given twice."""
    nodes = [node for file in files for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)]
    names = [node.name for node in nodes if not node.name.startswith("_")]
    return sorted({name for name in names if names.count(name) > 1})


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
    sys.path.insert(0, str(root))
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    files = [p for package in PACKAGES for p in (root / package).rglob("*.py") if p.name != "__init__.py"]
    lines = sorted(file.read_text().count("\n") for file in files)
    for package in PACKAGES:
        print(f"siblings in {package}/: {siblings(root / package)}")
    print(f"modules: {len(files)}, median {statistics.median(lines):g} lines, at most {lines[-1]}")
    print(f"modules under {SLIVER_LINES} lines: {sum(n < SLIVER_LINES for n in lines)}")
    circular = [circle for package in PACKAGES for circle in circles(graph, package)]
    print(f"circles among siblings: {len(circular)} {' '.join(circular)}".rstrip())
    twice = doubled(files)
    print(f"public class names given twice: {len(twice)} {' '.join(twice)}".rstrip())


if __name__ == "__main__":
    main()
