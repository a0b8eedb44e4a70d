import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bats_lab

ROOT = Path(__file__).parent.parent
HEAVY = {
    "bokeh",
    "cupy",
    "dask",
    "holoviews",
    "ipywidgets",
    "matplotlib",
    "netCDF4",
    "numba",
    "pandas",
    "panel",
    "papermill",
    "xarray",
}


def fresh(code):
    """Run code where nothing has been imported yet, and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_heavy():
    loaded = fresh("import sys, bats_lab; bats_lab.Config(); print(*{m.split('.')[0] for m in sys.modules})").split()
    assert "bats_lab" in loaded and not HEAVY & set(loaded)


@pytest.mark.parametrize("name", bats_lab.__all__)
def test_every_public_name_is_there(name):
    value = getattr(bats_lab, name)
    assert name in dir(bats_lab)
    assert inspect.ismodule(value) or (value.__name__ == name and value.__module__.startswith("bats_lab."))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="run_experimint"):
        _ = bats_lab.run_experimint


def test_no_module_has_the_name_of_a_public_function_beside_it():
    package = Path(bats_lab.__file__).parent
    for folder in [package, *(path.parent for path in package.rglob("__init__.py"))]:
        beside = {path.stem for path in folder.glob("*.py")} | {
            path.parent.name for path in folder.glob("*/__init__.py")
        }
        name = ".".join(folder.relative_to(package.parent).parts)
        room = importlib.import_module(name)
        for public in getattr(room, "__all__", []):
            value = getattr(room, public)
            assert public not in beside or inspect.ismodule(value), f"{name}.{public}"


def test_what_the_guide_names_works_after_a_plain_import():
    pages = [
        ROOT / "README.md",
        *ROOT.glob("docs/**/*.md"),
        ROOT / "results" / "README.md",
        *ROOT.glob("notebooks/*.ipynb"),
    ]
    named = {name for page in pages for name in re.findall(r"bats_lab(?:\.\w+)+", page.read_text())}
    assert {"bats_lab.open_results", "bats_lab.run_experiment"} <= named
    code = "import bats_lab\n" + "\n".join(
        sorted(named | {"bats_lab.deploy", "bats_lab.collapse", "bats_lab.estimators"})
    )
    fresh(code)
