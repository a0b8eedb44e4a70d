import subprocess
import sys

import pytest

import bats_lab

HEAVY = {
    "bokeh",
    "cupy",
    "dask",
    "holoviews",
    "ipywidgets",
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
    if name not in ("explore", "plots", "__version__"):
        assert value.__name__ == name and value.__module__.startswith("bats_lab.")


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'run_experimint'"):
        _ = bats_lab.run_experimint


@pytest.mark.parametrize("first", ["bats_lab.experiment", "bats_lab.train", "bats_lab.discretize"])
def test_functions_are_not_hidden_by_modules_of_their_name(first):
    both = "callable(bats_lab.train), callable(bats_lab.discretize)"
    code = f"import bats_lab; from {first} import __all__; import bats_lab.train; print({both})"
    assert fresh(code) == "True True"


def test_a_module_of_a_function_s_name_can_be_imported_from():
    from bats_lab.train import Pass, train

    assert Pass.__module__ == "bats_lab.train" and bats_lab.train is train
