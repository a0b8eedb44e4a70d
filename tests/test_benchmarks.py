"""The benchmarks' comparison with another revision: what it checks out, and that it leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def worktrees() -> str:
    return subprocess.check_output(["git", "-C", str(ROOT), "worktree", "list"], text=True)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository's history")
def test_a_side_runs_the_revision_and_its_worktree_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests" / "benchmarks")
    from compare import Side, checked_out

    with checked_out("HEAD") as folder:
        assert str(folder) in worktrees()
        side = Side(folder, 1)  # refuses another tree's package
        side.close()
        assert side.package == folder / "bats_lab"
    assert not folder.exists() and str(folder) not in worktrees()
    sys.modules.pop("compare")
