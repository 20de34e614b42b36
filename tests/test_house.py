"""The house rules that no linter holds: sizes, no global state, broad catches explained, light imports, fresh pins."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
SOURCES = {
    path: ast.parse(path.read_text())
    for package in ("router", "distiller")
    for path in sorted((ROOT / package).rglob("*.py"))
}
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in SOURCES]
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
SLIVER_LINES, MAX_SLIVERS = 50, 19
NOUNS = {
    "ceiling", "finding", "grading", "learning", "pricing", "reading", "reasoning", "recording", "routing", "ruling",
    "sampling", "scoring", "served", "sharding", "spelling", "spending", "tracking", "training", "tuning",
}  # fmt: skip
"""Words that end like a participle and name a thing; ``served`` is what serves now."""
JUDGES_NAMES = {"Exact", "Normalised", "Numeric", "Json", "Semantic"}
"""Settings of judges are called as policies call the judges."""
NO_NOUNS = {
    "about", "after", "against", "alone", "before", "behind", "below", "beside", "beyond", "due", "during", "in",
    "known", "left", "of", "on", "once", "out", "over", "said", "through", "told", "under", "until", "up", "with",
}  # fmt: skip
LIGHT = {
    "aiohttp", "brotli", "fastapi", "httptools", "multidict", "numpy", "orjson", "prometheus_client", "pydantic",
    "pydantic_core", "rich", "starlette", "structlog", "threadpoolctl", "typer", "typing_extensions", "uvicorn",
    "yaml", "yarl", "zstandard",
}  # fmt: skip
"""What importing a module of ours may load of others' packages. All else that we use loads where it is first used."""

# For a fresh interpreter: imports MODULES; prints what they loaded, and what our own code opened, wrote,
# started or connected to meanwhile. Reading a module's own file is the import system's doing, not ours.
PROBE = """
import importlib, json, sys, sysconfig
EVENTS = ("open", "os.mkdir", "os.remove", "os.rename", "os.listdir", "os.scandir", "os.system", "os.fork",
          "sqlite3.connect", "socket.__new__", "socket.connect", "subprocess.Popen", "os.posix_spawn")
stdlib, done = sysconfig.get_path("stdlib"), []
def ours(frame):
    while frame:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib"):
            return None
        if "site-packages" in file or not file.startswith((stdlib, "<")):
            return f"{file}:{frame.f_lineno}" if file.startswith(ROOT) and "site-packages" not in file else None
        frame = frame.f_back
def watch(event, args):
    if event in EVENTS and (where := ours(sys._getframe(1))):
        done.append(f"{where}: {event} {args[:1]}")
sys.addaudithook(watch)
for module in MODULES:
    importlib.import_module(module)
print(json.dumps({"loaded": sorted({name.split(".")[0] for name in sys.modules}), "done": done}))
"""


def imported(modules: list[str]) -> dict[str, list[str]]:
    code = f"ROOT = {str(ROOT)!r}\nMODULES = {modules!r}\n{PROBE}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, list[str]] = json.loads(ran.stdout.splitlines()[-1])
    return found


def at(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def long_functions(trees: Mapping[Path, ast.Module]) -> list[str]:
    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                found += [f"{at(path, node.lineno)} {node.name}"] if lines > MAX_FUNCTION_LINES else []
    return found


def test_modules_and_functions_stay_small() -> None:
    long = [at(path, n) for path in SOURCES if (n := path.read_text().count("\n")) > MAX_MODULE_LINES]
    beside = {
        p: ast.parse(p.read_text()) for name in ("benchmarks", ".ci") for p in sorted((ROOT / name).rglob("*.py"))
    }
    assert long + long_functions({**SOURCES, **beside}) == []


def test_few_modules_are_slivers() -> None:
    lengths = {at(p, 1): p.read_text().count("\n") for p in SOURCES if p.name not in ("__init__.py", "__main__.py")}
    slivers = sorted(place for place, lines in lengths.items() if lines < SLIVER_LINES)
    assert len(slivers) <= MAX_SLIVERS, slivers


def test_no_function_rebinds_a_global() -> None:
    assert [at(p, n.lineno) for p, tree in SOURCES.items() for n in ast.walk(tree) if isinstance(n, ast.Global)] == []


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for path, tree in SOURCES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(at(path, node.lineno))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_all_is_logged_one_way_by_names_in_snake_case() -> None:
    levels, other = {"debug", "info", "warning", "error", "critical", "exception"}, []
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "logging" for alias in node.names):
                other.append(f"{at(path, node.lineno)} the standard library's")
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            whose, how = ast.unparse(node.func.value), node.func.attr
            if whose == "structlog" and how == "configure" and path != ROOT / "router/logs.py":
                other.append(f"{at(path, node.lineno)} a second configuration")
            if whose == "log" and how in levels and not re.fullmatch(r"'[a-z][a-z0-9_]*'", ast.unparse(node.args[0])):
                other.append(f"{at(path, node.lineno)} {ast.unparse(node.args[0])}")
    assert other == []


def parts() -> set[str]:
    """Classes of serving that are collaborators: no values (dataclasses, tuples, models, enums), no errors."""
    found = set()
    for path, tree in SOURCES.items():
        for node in tree.body if path.is_relative_to(ROOT / "router") else ():
            if isinstance(node, ast.ClassDef) and not node.decorator_list:
                bases = {ast.unparse(base).split("[")[0] for base in node.bases}
                found |= {node.name} if bases <= {"Protocol", "Generic"} else set()
    return found


def test_nothing_but_the_application_builds_a_collaborator_for_want_of_one() -> None:
    """Neither as an argument's default nor in place of one that was not given."""
    collaborators, built = parts(), []
    assert {"Metrics", "BackendClient", "MachineState", "Drain"} <= collaborators
    for path, tree in SOURCES.items():
        if path == ROOT / "router/app.py":
            continue
        for node in ast.walk(tree):
            wanting = node.values[1:] if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or) else []
            wanting += [*node.defaults, *filter(None, node.kw_defaults)] if isinstance(node, ast.arguments) else []
            for value in wanting:
                if isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[0] in collaborators:
                    built.append(f"{at(path, value.lineno)} {ast.unparse(value)}")
    assert built == []


def is_noun(word: str) -> bool:
    return word in NOUNS or not (word in NO_NOUNS or re.search(r"[^aeiou](ing|ed)$", word))


def test_modules_and_classes_are_nouns() -> None:
    """As far as a word's ending tells: no gerunds, participles or prepositions. A command's module is called as the
    command is; an error is called for what happened."""
    amiss = [m for m in MODULES if not is_noun(m.rpartition(".")[2].rpartition("_")[2])]
    errors = {n.name for n in SOURCES[ROOT / "router/errors.py"].body if isinstance(n, ast.ClassDef)}
    for path, tree in SOURCES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name not in JUDGES_NAMES:
                raised = bool({ast.unparse(base) for base in node.bases} & {*errors, "Exception"})
                last = re.findall(r"[A-Z][a-z0-9]*", node.name)[-1].lower()
                amiss += [] if raised or is_noun(last) else [f"{at(path, node.lineno)} {node.name}"]
    assert not amiss, "\n".join(amiss)


def is_broad(handler: ast.ExceptHandler) -> bool:
    """Whether it catches everything and keeps it; one that cleans up and raises again does not."""
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(c is None or (isinstance(c, ast.Name) and c.id in ("Exception", "BaseException")) for c in caught)


def test_every_broad_catch_says_why() -> None:
    """Beside it, or in the docstring of a function that is a top level."""
    silent = []
    for path, tree in SOURCES.items():
        lines = path.read_text().splitlines()
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if "top level" in (ast.get_docstring(function) or ""):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.ExceptHandler) and is_broad(node):
                    comment = re.sub(r"noqa: \w+", "", lines[node.lineno - 1].partition("#")[2])
                    silent += [] if re.search(r"\w", comment) else [at(path, node.lineno)]
    assert silent == []


def test_no_broad_suppression_is_silent() -> None:
    silent = []
    for path, tree in SOURCES.items():
        lines = path.read_text().splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
                broad = {ast.unparse(kind) for kind in node.args} & {"Exception", "BaseException"}
                silent += [at(path, node.lineno)] if broad and "#" not in lines[node.lineno - 1] else []
    assert silent == []


ELSEWHERE = {"takes", "check_schema"}
"""What fails by itself where something is amiss, beside an assertion: a provider's rules, a schema's own schema."""


def asserts(node: ast.AST, helpers: Mapping[str, ast.AST], left: int = 3) -> bool:
    """Whether something in a test can fail: an assertion, an expected error, a deadline, or a helper that has one."""
    for part in ast.walk(node):
        if isinstance(part, ast.Assert) or (isinstance(part, ast.keyword) and ast.unparse(part) == "check=True"):
            return True
        if isinstance(part, ast.Call):
            called = ast.unparse(part.func)
            last = called.rpartition(".")[2]
            if last in {"raises", "until", "wait_for", "call_and_validate", "fail", *ELSEWHERE} or last.startswith(
                "assert_"
            ):
                return True
            helper = helpers.get(called)
            if helper is not None and helper is not node and left and asserts(helper, helpers, left - 1):
                return True
    return False


def test_every_test_asserts_something() -> None:
    idle = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        functions = [
            n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        helpers = {function.name: function for function in functions}
        tests = [function for function in functions if function.name.startswith("test_")]
        idle += [f"{at(path, test.lineno)} {test.name}" for test in tests if not asserts(test, helpers)]
    assert idle == []


def test_nothing_is_left_unfinished() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|\bNotImplementedError\b")
    found = [
        at(path, n) for path in SOURCES for n, line in enumerate(path.read_text().splitlines(), 1) if marks.search(line)
    ]
    assert found == []


def used() -> set[str]:
    """Others' packages that our code imports somewhere: at the top of a module, or within a function."""
    found = set()
    for tree in SOURCES.values():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found.update(name.split(".")[0] for name in names)
    return found - set(sys.stdlib_module_names) - {"router", "distiller"}


def test_importing_any_module_does_nothing_and_loads_nothing_heavy() -> None:
    found = imported(MODULES)
    assert found["done"] == []
    bare = set(imported([])["loaded"])  # what this interpreter loads anyway (editable installs)
    heavy = used() - LIGHT
    assert {"torch", "litellm", "sklearn", "transformers"} <= heavy
    beneath = {"datasets", "pandas", "scipy"}  # what those would bring
    assert (heavy | beneath) & (set(found["loaded"]) - bare) == set()


def test_contracts_need_pydantic_and_the_standard_library_alone() -> None:
    allowed = set(sys.stdlib_module_names) | {
        "annotated_types", "pydantic", "pydantic_core", "router", "typing_extensions", "typing_inspection",
    }  # fmt: skip
    bare = set(imported([])["loaded"])  # what this interpreter loads anyway (editable installs)
    contracts = [m for m in MODULES if m.startswith("router.contracts")]
    assert set(imported(contracts)["loaded"]) - bare - allowed == set()


def test_the_lock_satisfies_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [Requirement(line) for line in project["build-system"]["requires"] + project["project"]["dependencies"]]
    asked += [Requirement(line) for extra in project["project"]["optional-dependencies"].values() for line in extra]
    pinned = {}
    for name in ("runtime.txt", "dev.txt", "clients.txt", "runtime.in"):
        text = (ROOT / "requirements" / name).read_text()
        pinned |= {canonicalize_name(m[1]): m[2] for m in re.finditer(r"^([\w.-]+)==([^\s;\\]+)", text, re.M)}
    stale = [
        str(r)
        for r in asked
        if r.name != "locum" and not r.specifier.contains(pinned.get(canonicalize_name(r.name), "0"))
    ]
    assert stale == [], "run `make lock`"
