"""One notebook executed by Papermill, whose file tells how it went; what a sweep does with it is in test_sweep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from bats_lab.sweeps.execute import KILLED, declared_parameters, run_notebook
from bats_lab.sweeps.pool import Call, Event, Pool

PARAMETERS = """
text: str = "a"
number: float | None = 1.5
many: list[int] = [1]
none: str | None = "x"
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook that prints its parameters."""
    cells = [
        nbformat.v4.new_markdown_cell("# Title"),
        nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell('print("first line", flush=True)'),
        nbformat.v4.new_code_cell("print(repr((text, number, many, none)), flush=True)"),
        nbformat.v4.new_code_cell('if text == "fail":\n    raise ValueError("what went wrong\\nand more about it")'),
        nbformat.v4.new_code_cell('if text == "mute":\n    raise SystemError\nprint("last line")'),
    ]
    path = tmp_path_factory.mktemp("notebook") / "some.ipynb"
    made = nbformat.v4.new_notebook(cells=cells)
    # The kernel is this very Python, whatever a notebook says.
    made.metadata.kernelspec = {"name": "somewhere-else", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, path)
    return path


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(1) as pool:
        yield pool


def execute(pool: Pool, source: Path, out: Path, **parameters: Any) -> tuple[str, str, str]:
    """Return how it ended, why, and all that the notebook printed."""
    call = Call(
        "bats_lab.sweeps.execute:run_notebook", {"source": str(source), "out": str(out), "parameters": parameters}
    )
    events = [event for event in pool.run([call]) if event.kind != "tick"]
    printed = "".join(event.text for event in events if event.kind == "output")
    return events[-1].kind, events[-1].text, printed


def test_relative_paths_count_from_where_they_are_said_to(pool: Pool, tmp_path: Path) -> None:
    cells = [
        nbformat.v4.new_code_cell("", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("from pathlib import Path\nprint(Path().resolve(), flush=True)"),
    ]
    source = tmp_path / "where.ipynb"
    made = nbformat.v4.new_notebook(cells=cells)
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, source)
    arguments: dict[str, Any] = {"source": str(source), "out": str(tmp_path / "out.ipynb"), "parameters": {}}
    for given, expected in (({}, Path.cwd()), ({"cwd": str(tmp_path)}, tmp_path.resolve())):
        events = list(pool.run([Call("bats_lab.sweeps.execute:run_notebook", arguments | given)]))
        assert events[-1].kind == "finished", events[-1].text
        assert "".join(event.text for event in events if event.kind == "output").strip() == str(expected)


def test_parameters_reach_the_notebook_as_they_are(pool: Pool, notebook: Path, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "a.b.ipynb"
    given = {"text": 'it\'s "so"\nü', "number": 1e-300, "many": [3, 4], "none": None}
    kind, reason, printed = execute(pool, notebook, out, **given)
    assert (kind, reason) == ("finished", "")
    assert printed.splitlines() == ["first line", repr(tuple(given.values())), "last line"]
    assert [p.name for p in out.parent.iterdir()] == ["a.b.ipynb"]


def test_error_in_the_notebook_is_the_reason_in_one_line(pool: Pool, notebook: Path, tmp_path: Path) -> None:
    kind, reason, printed = execute(pool, notebook, tmp_path / "out.ipynb", text="fail")
    assert (kind, reason) == ("failed", "ValueError: what went wrong") and "last line" not in printed
    assert [p.name for p in tmp_path.iterdir()] == ["out.failed.ipynb"]
    _, reason, _ = execute(pool, notebook, tmp_path / "out.ipynb", text="mute")
    assert reason == "SystemError"


def test_success_removes_what_an_earlier_failure_left_and_nothing_else(
    pool: Pool, notebook: Path, tmp_path: Path
) -> None:
    for name in ("out.failed.ipynb", "out.running.ipynb", "other.failed.ipynb"):
        (tmp_path / name).write_text("from before")
    before = notebook.read_bytes()
    kind, _, printed = execute(pool, notebook, tmp_path / "out.ipynb")
    assert kind == "finished" and printed.splitlines()[1] == "('a', 1.5, [1], 'x')"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.failed.ipynb", "out.ipynb"]
    assert notebook.read_bytes() == before


def test_function_that_fails_is_reported_and_its_process_goes_on(pool: Pool) -> None:
    calls = [Call("math:no_such_function", {}), Call("builtins:int", {"no": 1}), Call("builtins:dict", {})]
    events = [e for e in pool.run(calls) if e.kind in ("finished", "failed")]
    assert [e.kind for e in events] == ["failed", "failed", "finished"]
    assert events[0].text.startswith("AttributeError: ") and events[1].text.startswith("TypeError: ")


@pytest.mark.parametrize("value", [{"a": 1}, [[1]], b"x", object(), [1, {2}]])
def test_value_that_cannot_be_written_into_a_notebook_is_refused(notebook: Path, tmp_path: Path, value: Any) -> None:
    with pytest.raises(TypeError, match=r"^many is .*; a notebook's parameter must be text, a number, a bool, None or"):
        run_notebook(notebook, tmp_path / "out.ipynb", {"many": value})
    assert not list(tmp_path.iterdir())


def test_parameter_that_is_not_declared_is_refused(notebook: Path, tmp_path: Path) -> None:
    message = r"^'nmber' is no parameter of some\.ipynb; it declares many, none, number, text\.$"
    with pytest.raises(ValueError, match=message):
        run_notebook(notebook, tmp_path / "out.ipynb", {"text": "a", "nmber": 1})
    assert not list(tmp_path.iterdir())


def test_declared_parameters_are_those_assigned_in_the_tagged_cell(notebook: Path) -> None:
    assert declared_parameters(json.loads(notebook.read_text())) == {"text", "number", "many", "none"}
    cells = [
        {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": ["a = 1\n", "b: int | None = None\n"]},
        {"cell_type": "code", "metadata": {}, "source": "c = 1"},
        {"cell_type": "markdown", "metadata": {"tags": ["parameters"]}, "source": "d = 1"},
    ]
    assert declared_parameters({"cells": cells}) == {"a", "b"}
    assert declared_parameters({"cells": cells[1:]}) == set()


# What goes wrong while a notebook runs


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook that does what its parameter says."""
    code = """
import os, time
print("here", flush=True)
if what == "die":
    os.kill(os.getpid(), 9)
if what == "sleep":
    time.sleep(1000)
"""
    parameters = nbformat.v4.new_code_cell("what: str | None = None", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(code)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path_factory.mktemp("toy") / "toy.ipynb"
    nbformat.write(notebook, path)
    return path


def toy_events(pool: Pool, toy: Path, out: Path, timeout: float | None = None, **parameters: Any) -> list[Event]:
    arguments = {"source": str(toy), "out": str(out), "parameters": parameters}
    events = pool.run([Call("bats_lab.sweeps.execute:run_notebook", arguments)], timeout=timeout)
    return [event for event in events if event.kind != "tick"]


def test_kernel_that_is_killed_fails_with_a_reason(pool: Pool, toy: Path, tmp_path: Path) -> None:
    started, *_, failed = toy_events(pool, toy, tmp_path / "toy.ipynb", what="die")
    assert (started.kind, failed.kind, failed.text) == ("started", "failed", KILLED)
    assert [p.name for p in tmp_path.iterdir()] == ["toy.failed.ipynb"]


def test_notebook_that_takes_too_long_is_ended(pool: Pool, toy: Path, tmp_path: Path) -> None:
    *_, failed = toy_events(pool, toy, tmp_path / "toy.ipynb", what="sleep", timeout=2)
    assert (failed.kind, failed.text) == ("failed", "stopped after 2 s")
    assert not (tmp_path / "toy.ipynb").exists()


def test_misspelt_notebook_parameter_is_refused(pool: Pool, toy: Path, tmp_path: Path) -> None:
    *_, failed = toy_events(pool, toy, tmp_path / "toy.ipynb", waht="sleep")
    assert failed.text == "ValueError: 'waht' is no parameter of toy.ipynb; it declares what."
    assert not list(tmp_path.iterdir())


def test_worker_that_dies_is_replaced_and_its_call_reported(pool: Pool) -> None:
    calls = [Call("os:abort", {}), Call("builtins:dict", {})]
    events = [e for e in pool.run(calls) if e.kind not in ("tick", "started")]
    assert [(e.index, e.kind) for e in events] == [(0, "failed"), (1, "finished")]
    assert events[0].text == "its process was ended by SIGABRT"
