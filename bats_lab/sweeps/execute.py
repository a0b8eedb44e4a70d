"""Papermill executions whose files tell the truth.

Papermill writes the executed notebook while it runs, and after a timeout, a kernel that died or Ctrl-C every cell
in it looks completed. So a notebook is executed as ``<name>.running.ipynb`` and renamed when it is over:
``<name>.ipynb`` exists only after success, ``<name>.failed.ipynb`` otherwise. Meanwhile it may append what becomes of
its runs, as lines of JSON, to ``<name>.running.jsonl``, which its environment names as :data:`STATUS`.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from bats_lab.sweeps.standby import StandbyKernel

__all__ = ["KILLED", "STATUS", "NotebookError", "one_line", "run_notebook", "stop_file", "working_files"]

#: The reason given for a run whose process was killed, as the system does when memory runs out.
KILLED = "killed (out of memory?)"

#: Environment variable that names to a notebook the file for what becomes of its runs.
STATUS = "BATS_LAB_STATUS"

_SCALARS = (str, int, float, bool, type(None))


class WorkingFiles(NamedTuple):
    """Files beside an executed notebook while it runs, and after it failed."""

    running: Path
    failed: Path
    status: Path


def working_files(out: str | Path) -> WorkingFiles:
    """Return the files that belong to the execution of a notebook which will be `out`."""
    return WorkingFiles(*map(Path(out).with_suffix, (".running.ipynb", ".failed.ipynb", ".running.jsonl")))


def stop_file(status: str | Path) -> Path:
    """Return the file that says, where it is there, that the run which tells of itself in `status` is to be ended."""
    return Path(status).with_suffix(".stop")


class NotebookError(Exception):
    """A notebook's execution failed; the message is the reason in one line."""


def run_notebook(
    source: str | Path,
    out: str | Path,
    parameters: Mapping[str, Any],
    *,
    cwd: str | Path | None = None,
    on_output: Callable[[str], None] | None = None,
    standby: StandbyKernel | None = None,
) -> None:
    """Execute a notebook by Papermill so that the files on disk tell how it goes and how it went.

    Parameters
    ----------
    source : path
        The notebook, with a cell tagged ``parameters``.
    out : path ending in ``.ipynb``
        Where the executed notebook is put after success; meanwhile, and after a failure, it is one of
        :func:`working_files`.
    parameters : mapping of str to str, int, float, bool, None or a list of those
        Values that replace those of the parameters cell. All of them must be declared there.
    cwd : path, optional
        Folder from which relative paths in the notebook count; None: that of the process.
    on_output : callable, optional
        Called with each piece of text that the notebook prints.
    standby : StandbyKernel, optional
        Process that becomes the notebook's kernel; None: one is started, which takes seconds to import what it needs.

    Raises
    ------
    ValueError, TypeError
        If the notebook has no such parameter, or a value cannot be written into a notebook.
    NotebookError
        If the execution fails; the message is the reason in one line.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    source, out = Path(source), Path(out)
    values = _checked_parameters(source, parameters)
    out.parent.mkdir(parents=True, exist_ok=True)
    running, failed, status = files = working_files(out)
    for stale in (*files, stop_file(status)):
        stale.unlink(missing_ok=True)
    file = _WholeFile(running)
    try:
        with tempfile.TemporaryDirectory(prefix="bats-", ignore_cleanup_errors=True) as folder:
            papermill.execute_notebook(
                str(source),
                str(running),
                parameters=values,
                cwd=None if cwd is None else str(cwd),
                progress_bar=False,
                stdout_file=SimpleNamespace(write=on_output, flush=lambda: None) if on_output else None,
                kernel_manager_class=_kernel_manager_class(folder, {STATUS: str(status)}, standby),
                shutdown_kernel="immediate",  # it has nothing left to do, and takes a second to end by itself
            )
        if file.error is not None:
            raise file.error
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.replace(running, failed)
        if isinstance(error, DeadKernelError) or "Kernel died before" in str(error):  # so Jupyter says at its start
            raise NotebookError(KILLED) from error
        if isinstance(error, PapermillExecutionError):
            raise NotebookError(one_line(error.ename, error.evalue)) from error
        if isinstance(error, Exception):
            raise NotebookError(one_line(type(error).__name__, error)) from error
        raise
    os.replace(running, out)


class _WholeFile:
    """How Papermill writes one notebook, again and again: whole each time, and without breaking off where it cannot."""

    def __init__(self, path: Path) -> None:
        from papermill.iorw import papermill_io

        self.error: OSError | None = None
        papermill_io.register(str(path), self)

    def write(self, text: str, path: str) -> None:
        part = Path(path).with_name(f".{Path(path).name}.part")
        self.error = None
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(text, encoding="utf-8")
            os.replace(part, path)
        except OSError as error:  # the folder may be there again when the notebook is over
            self.error = error
            with contextlib.suppress(OSError):
                part.unlink()

    def pretty_path(self, path: str) -> str:
        return path


def declared_parameters(notebook: Mapping[str, Any]) -> set[str]:
    """Return the names assigned in the cell tagged ``parameters`` (empty if there is no such cell)."""
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code" and "parameters" in c["metadata"].get("tags", [])]
    return set().union(*(assigned_names("".join(cell["source"])) for cell in cells))


def assigned_names(source: str) -> set[str]:
    """Return the names to which a cell assigns.

    Papermill's own inspection overlooks annotations such as ``int | None``.
    """
    assigned = [s for s in ast.parse(source).body if isinstance(s, (ast.Assign, ast.AnnAssign))]
    targets = [target for s in assigned for target in (s.targets if isinstance(s, ast.Assign) else [s.target])]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _checked_parameters(source: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse what Papermill would pass over or write wrongly, and turn tuples into lists and paths into text."""
    declared = declared_parameters(json.loads(source.read_text(encoding="utf-8")))
    values = {}
    for name, given in parameters.items():
        if name not in declared:
            raise ValueError(f"{name!r} is no parameter of {source.name}; it declares {', '.join(sorted(declared))}.")
        value = os.fspath(given) if isinstance(given, os.PathLike) else given
        value = list(value) if isinstance(value, tuple) else value
        if not all(isinstance(v, _SCALARS) for v in (value if isinstance(value, list) else [value])):
            raise TypeError(
                f"{name} is {given!r}; a notebook's parameter must be text, a number, a bool, None or a list."
            )
        values[name] = value
    return values


def one_line(name: str, message: object) -> str:
    """Write an error as its name and the first line of its message, or its name alone where there is no message."""
    return f"{name}: {message}".strip().splitlines()[0].rstrip(": ")


#: Bytes of a folder's path up to which there may be sockets in it: 104 on some systems, with their own names.
_MOST_BYTES = 95


def _kernel_manager_class(folder: str, environment: Mapping[str, str], standby: StandbyKernel | None) -> type:
    """Build the class of a kernel manager: over IPC, with its sockets in `folder`, running this very Python.

    Sockets with the default names collide between parallel runs in one working directory; and the user's kernelspec
    ``python3`` may belong to another environment. Where the folder's path is too long for a socket's, it is over TCP.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class IPCKernelManager(AsyncKernelManager):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            if len(os.fsencode(folder)) <= _MOST_BYTES:
                self.transport, self.ip = "ipc", os.path.join(folder, "s")
            self.connection_file = os.path.join(folder, "kernel.json")
            if standby is not None:
                self.provisioner = standby.provisioner(self.kernel_spec, parent=self)

        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            env = {name: value.replace("$", "$$") for name, value in environment.items()}  # no variables in there
            return KernelSpec(argv=argv, env=env, display_name="Python 3", language="python")

    return IPCKernelManager
