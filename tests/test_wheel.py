"""The wheel, which an editable install never shows: it holds every file of the packages, and all of it imports."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("convert", "quantize", "runtime")
LEAVINGS = shutil.ignore_patterns("__pycache__", "*.pyc", "*.so")
COMPILED = {
    f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}" for name in ("runtime/bert/_layers", "runtime/llama/_backend")
}
IMPORT_ALL = """
import importlib, pathlib, sys
home, *modules = sys.argv[1:]
for name in modules:
    file = importlib.import_module(name).__file__
    assert pathlib.Path(file).is_relative_to(home), (name, file)
print(len(modules))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no ``build/`` folder of an earlier build leaks into it; offline."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=LEAVINGS)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)]
    subprocess.run(build, check=True, capture_output=True, text=True, timeout=120)
    return next(target.glob("*.whl"))


def files_of_the_tree() -> set[str]:
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    names = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    return {f"ingle/{name}" for name in names | COMPILED}


def test_the_wheel_holds_every_file_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == files_of_the_tree()


def test_the_wheel_carries_the_licence_and_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.split(".dist-info/")[1]: name for name in archive.namelist() if ".dist-info/" in name}
        assert "licenses/LICENSE" in names
        assert "ingle = ingle.runtime.cli.main:main" in archive.read(names["entry_points.txt"]).decode()


def test_every_module_imports_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
        files = [Path(name) for name in archive.namelist() if name.endswith(".py")]
    modules = [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, str(tmp_path), *modules],
        env={"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(modules) > 20
