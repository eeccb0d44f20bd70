"""The rules of the house: who imports whom, which module opens which library, what a file may be."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from ingle.convert import errors

ROOT = Path(__file__).parent.parent
FLOORS = ("convert", "quantize", "runtime")
# The rooms of runtime/, lowest first: a room imports from lower lines only (and from itself).
LAYERS = (
    {
        "abilities",
        "options",
        "request",
        "machine",
        "normalize",
        "corpus",
        "picture",
        "plot",
        "reference",
        "embedded",
        "confined",
    },
    {"llama", "truth"},
    {"bert"},
    {"chat", "comparison"},
    {"engine"},
    {"verify", "verify_adapter", "logits", "settle"},
    {"proof"},
    {"store"},
    {"model", "tasks", "measure", "fit"},
    {"promise"},
    {"server", "cli"},
)
STARTS_THE_SERVER = ROOT / "runtime" / "cli" / "serve.py"
SERVER_MAY_IMPORT = {
    "model",
    "options",
    "request",
    "store",
    "engine.stream",
    "chat",
    "chat.toolbox",
    "tasks.catalogue",
    "tasks.model",
    "tasks.process",
}
NEEDED_BY_OTHERS = {"protobuf"}
NO_THIRD_PARTY = ("runtime/engine/scheduler.py", "runtime/engine/prefix_cache.py", "runtime/engine/pace.py")
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc"}
MOST_LINES = 400

SOURCES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def name_of(path: Path) -> str:
    """``runtime/engine/stream.py`` -> ``ingle.runtime.engine.stream``; a package's ``__init__`` is the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("ingle", *parts)).removesuffix(".__init__")


MODULES = {name_of(path): path for path in SOURCES}


def imports_of(path: Path) -> Iterator[str]:
    """Absolute dotted names of all that a file imports, wherever in it; relative ones resolved."""
    here = name_of(path).split(".")
    package = here if path.name == "__init__.py" else here[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                yield submodule if submodule in MODULES else source
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "import_module":
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


IMPORTS = {path: sorted(set(imports_of(path))) for path in SOURCES}


def edges() -> Iterator[tuple[Path, str]]:
    """Each import of one of our modules by another."""
    for path, names in IMPORTS.items():
        yield from ((path, name) for name in names if name.split(".")[0] == "ingle")


def third_party(path: Path) -> set[str]:
    tops = {name.split(".")[0] for name in IMPORTS[path]}
    return tops - sys.stdlib_module_names - {"ingle"}


def room(module: str) -> str:
    """``ingle.runtime.engine.stream`` -> ``engine``; the package ``ingle.runtime`` itself -> ``""``."""
    return [*module.split("."), ""][2]


def doors() -> dict[str, tuple[str, ...]]:
    """Library -> the files and folders that may import it, as docs/architecture.md says."""
    table: dict[str, tuple[str, ...]] = {}
    for line in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines():
        cells = line.strip("|").split("|")
        places = tuple(re.findall(r"`([a-z_]+/[\w/.]*)`", cells[1])) if len(cells) == 2 else ()
        if places:
            table |= dict.fromkeys(re.findall(r"`(\w+)`", cells[0]), places)
    return table


def test_the_page_lists_the_doors() -> None:
    table = doors()
    assert {"llama_cpp", "huggingface_hub", "transformers", "tokenizers", "jinja2", "fastapi", "click"} <= set(table)
    missing = {place for places in table.values() for place in places if not (ROOT / place).exists()}
    assert not missing, "docs/architecture.md names places that do not exist"


def test_each_library_has_one_door() -> None:
    table = doors() | {"numpy": tuple(f"{floor}/" for floor in FLOORS)}
    trespassers = [
        f"{path.relative_to(ROOT)} imports {library}"
        for path in SOURCES
        for library in sorted(third_party(path))
        if not any(str(path.relative_to(ROOT)).startswith(place) for place in table.get(library, ()))
    ]
    assert not trespassers, "see the table of doors in docs/architecture.md"


def test_each_library_is_a_declared_dependency() -> None:
    """Also one that comes along with another, as long as we import it ourselves."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[<>=~!\[; ]", line)[0].replace("-", "_") for line in project["dependencies"]}
    imported = set().union(*map(third_party, SOURCES)) - {"llama_cpp", "PIL"} | {"llama_cpp_python", "pillow"}
    assert imported | NEEDED_BY_OTHERS == declared


@pytest.mark.parametrize("file", NO_THIRD_PARTY)
def test_policy_is_pure_python(file: str) -> None:
    assert not third_party(ROOT / file)


def test_imports_go_down_the_floors() -> None:
    upward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, name in edges()
        if FLOORS.index(name.split(".")[1]) > FLOORS.index(path.relative_to(ROOT).parts[0])
    ]
    assert not upward


def test_our_own_modules_are_imported_relatively() -> None:
    absolute = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "ingle")
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "ingle" for alias in node.names))
    ]
    assert not absolute


def test_every_room_of_the_runtime_has_its_layer() -> None:
    rooms = {room(module) for module in MODULES if module.startswith("ingle.runtime.")}
    assert rooms <= set().union(*LAYERS)


def test_imports_go_down_the_rooms_of_the_runtime() -> None:
    layer = {name: height for height, layer in enumerate(LAYERS) for name in layer}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, name in edges()
        if (here := room(name_of(path))) in layer
        and name_of(path).startswith("ingle.runtime.")
        and name.startswith("ingle.runtime")
        and (there := room(name)) != here
        and layer.get(there, len(LAYERS)) >= layer[here]
        and (path, there) != (STARTS_THE_SERVER, "server")
    ]
    assert not wrong


def test_the_server_stands_on_the_public_model() -> None:
    deeper = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, name in edges()
        if name_of(path).startswith("ingle.runtime.server") and name.startswith("ingle.runtime.")
        if (target := name.removeprefix("ingle.runtime.")) not in SERVER_MAY_IMPORT
        and target.split(".")[0] not in {"server", "store"}
    ]
    assert not deeper


@pytest.mark.parametrize("folder", [*FLOORS, "tests", "bench"])
def test_a_file_is_one_noun(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    long = [f"{path.relative_to(ROOT)}" for path in files if len(path.read_text("utf-8").splitlines()) > MOST_LINES]
    drawers = [f"{path.relative_to(ROOT)}" for path in files if {path.stem, path.parent.name} & DRAWERS]
    assert not long
    assert not drawers


ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.IngleError)]


def test_the_error_tree_is_drawn_whole() -> None:
    drawn = set(re.findall(r"\b[A-Z]\w+", errors.__doc__ or ""))
    assert {kind.__name__ for kind in ERRORS} <= drawn


def test_each_error_has_a_code_of_its_own() -> None:
    codes = [vars(kind).get("code") for kind in ERRORS]
    assert None not in codes
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_can_be_answered_by_every_door(kind: type[errors.IngleError]) -> None:
    assert 400 <= kind.status < 600
    assert 1 <= kind.exit_code < 64
    error = pickle.loads(pickle.dumps(kind("it broke", hint="mend it", param="field")))
    assert (type(error), error.message, error.hint, error.param) == (kind, "it broke", "mend it", "field")
    assert str(error) == "it broke\nmend it"


def test_context_length_exceeded_keeps_its_numbers_across_a_process() -> None:
    error = pickle.loads(pickle.dumps(errors.ContextLengthExceeded.of(513, 512)))
    assert (error.prompt_tokens, error.context_window, error.param) == (513, 512, "messages")
    assert "513" in str(error)
    assert "511" in str(error)


HEAVY = {"llama_cpp", "numpy", "transformers", "tokenizers", "huggingface_hub", "fastapi", "jinja2", "pydantic"}
ENDING = """
except SystemExit:
    pass
print("loaded:", *sys.modules)
"""


def loaded_after(code: str) -> set[str]:
    """The heavy libraries that a fresh interpreter has imported when ``code`` ends."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\ntry:\n    {code}{ENDING}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return HEAVY & set(done.stdout.rsplit("loaded:", 1)[1].split())


def test_importing_the_runtime_loads_nothing_heavy() -> None:
    assert not loaded_after("import ingle.runtime")


def test_help_loads_nothing_heavy() -> None:
    assert not loaded_after("from ingle.runtime.cli.main import main; sys.argv = ['ingle', '--help']; main()")
