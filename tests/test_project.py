"""Facts about the project as a whole: what must not drift apart, and what must not get in."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import bats_lab
from bats_lab.config import parameters_cell

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# A room (a sub-package, or a module beside them) imports only from rooms to its left; in a room files know each other.
ROOMS = [
    "errors",
    "files",
    "spikes",
    "config",
    "data",
    "engine",
    "network",
    "runs",
    "sweeps",
    "plots",
    "studies",
    "explore",
    "cli",
]


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


# environment.yml and pyproject.toml


def conda_dependencies() -> dict[str, str]:
    """Return names and specifiers of the conda packages; conda writes `=3.11` for what pip writes `==3.11.*`."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert set(environment) == {"name", "channels", "dependencies"}
    assert environment["channels"] == ["conda-forge"]
    found = {}
    for line in environment["dependencies"][:-1]:
        match = re.fullmatch(r"([\w.-]+)\s*(.*)", line)
        assert match, line
        found[canonicalize_name(match[1])] = str(SpecifierSet(match[2]))
    assert environment["dependencies"][-1] == {"pip": ["-e ."]}
    return found


def pip_dependencies(*extras: str) -> dict[str, str]:
    listed = PROJECT["dependencies"] + [r for extra in extras for r in PROJECT["optional-dependencies"][extra]]
    return {canonicalize_name(r.name): str(r.specifier) for r in map(Requirement, listed)}


def test_environment_file_gives_what_the_project_asks_for() -> None:
    conda, pip = conda_dependencies(), pip_dependencies("cuda", "test")
    del pip["nvidia-cuda-runtime"]  # comes with conda-forge's cupy
    names = (
        ("cupy-cuda13x", "cupy"),
        ("nvidia-cuda-nvrtc", "cuda-nvrtc"),
        ("nvidia-cuda-nvdisasm", "cuda-nvdisasm"),
        ("playwright", "playwright-python"),
    )
    for name, on_conda_forge in names:
        pip[on_conda_forge] = pip.pop(name)
    assert conda == pip | {"python": PROJECT["requires-python"], "pip": ""}


def test_package_needs_no_cupy() -> None:
    assert not any(name.startswith("cupy") for name in pip_dependencies())


def test_lock_file_holds_every_dependency_in_its_range() -> None:
    locked: dict[str, list[str]] = {}
    for line in (ROOT / "requirements.lock").read_text().replace("\\\n", "").splitlines():
        text, *checksums = line.split(" --hash=")
        assert checksums and all(re.fullmatch(r"sha256:[0-9a-f]{64} *", checksum) for checksum in checksums), text
        requirement = Requirement(text)
        assert requirement.url is None
        locked.setdefault(canonicalize_name(requirement.name), []).append(str(requirement.specifier)[2:])
    for name, specifier in pip_dependencies("cuda", "cuda12", "test").items():
        assert locked[name] and all(SpecifierSet(specifier).contains(version) for version in locked[name]), name


def test_changelog_starts_with_this_version() -> None:
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first and first[1] == bats_lab.__version__


def test_functions_and_tests_named_in_the_table_exist() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## Equation")[2]
    functions, tests = re.findall(r"`(\w+(?:\.\w+)+)`", table), re.findall(r"`(\w+)::(\w+)`", table)
    assert len(functions) > 10 and len(tests) > 10
    places = [(ROOT / "bats_lab" / Path(*name.split(".")[:-1]), name.split(".")[-1]) for name in functions]
    for path, name in places + [(ROOT / "tests" / file, name) for file, name in tests]:
        assert re.search(rf"^def {name}\(", path.with_suffix(".py").read_text(), re.MULTILINE), f"{path.name}: {name}"


# Signatures and files


def test_no_function_takes_more_than_twelve_parameters_and_no_file_is_long() -> None:
    for path in (ROOT / "bats_lab").rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") < 600, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                listed = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                assert len([a for a in listed if a.arg not in ("self", "cls")]) <= 12, f"{path.name}: {node.name}"


# Imports


def rooms() -> dict[str, list[Path]]:
    """Return the source files of each room."""
    package = ROOT / "bats_lab"
    found: dict[str, list[Path]] = {}
    for path in package.rglob("*.py"):
        found.setdefault(path.relative_to(package).parts[0].removesuffix(".py"), []).append(path)
    return {name: paths for name, paths in found.items() if not name.startswith("__")}


def imported(path: Path) -> set[str]:
    """Return the rooms that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("bats_lab.")} & set(rooms())


def test_every_room_has_its_place_in_the_order() -> None:
    assert set(rooms()) == set(ROOMS)


@pytest.mark.parametrize("name", sorted(rooms()))
def test_imports_go_one_way(name: str) -> None:
    for path in rooms()[name]:
        assert imported(path) <= set(ROOMS[: ROOMS.index(name) + 1]), path


def test_no_test_file_imports_another() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) (test_|conftest\b)", path.read_text(), re.MULTILINE), path


# Notebooks


def read_notebook(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text())
    return notebook


def parameters_of(path: Path) -> str:
    cells = [c for c in read_notebook(path)["cells"] if "parameters" in c["metadata"].get("tags", [])]
    assert len(cells) == 1
    return "".join(cells[0]["source"])


def test_there_are_notebooks() -> None:
    assert {"10_train", "20_report"} <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_outputs(path: Path) -> None:
    notebook = read_notebook(path)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_starts_with_a_title_and_explains_its_parameters(path: Path) -> None:
    assert "".join(read_notebook(path)["cells"][0]["source"]).startswith("# ")
    lines = [line for line in parameters_of(path).splitlines() if line and not line.startswith("#")]
    for line in lines:
        # Papermill passes over what has a | in its type, or a second = in its line.
        assert re.fullmatch(r"\w+: [\w\[\], ]+ = [^#=]+  # [^=]+", line), line


def test_training_notebook_has_the_parameters_of_a_run() -> None:
    assert parameters_of(ROOT / "notebooks" / "10_train.ipynb").startswith(parameters_cell() + "\n")


# What is shipped, and what is stored


def test_wheel_carries_notebooks_and_data(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy, since a build leaves its traces beside the source
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("bats_lab", "notebooks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    command = "from setuptools import build_meta; import sys; print(build_meta.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", command, str(tmp_path)], cwd=source, capture_output=True, check=True)
    (wheel,) = tmp_path.glob(f"bats_lab-{bats_lab.__version__}-*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = {"bats_lab/py.typed", "bats_lab/data/README.md"}
    wanted |= {f"bats_lab/data/{name}.npz" for name in ("mnist_small", "japanese_vowels")}
    wanted |= {f"bats_lab/notebooks/{path.name}" for path in NOTEBOOKS}
    wanted |= {path.relative_to(ROOT).as_posix() for paths in rooms().values() for path in paths}
    wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "bats_lab").rglob("*.cu")}
    assert wanted <= packed


def test_nothing_stored_names_a_machine_or_a_registry() -> None:
    home = r"(?<![\w.])/(?:home|root|Users|work|tmp)/"
    registry = "|".join(["py" + r"pi\.org", "python" + "hosted", "anaconda" + r"\.org"])
    pattern = re.compile(f"{home}|{registry}".encode())
    for path in tracked_files():
        if path.suffix != ".npz":
            found = pattern.search(path.read_bytes())
            assert not found, f"{path.name} holds {found[0]!r}"


def test_nothing_stored_is_large() -> None:
    for path in tracked_files():
        assert path.stat().st_size < 3_000_000, path.name
