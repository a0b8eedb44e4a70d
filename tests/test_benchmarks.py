"""The benchmarks' comparison with another revision: what it checks out, and that it leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def worktrees() -> list[str]:
    done = subprocess.run(["git", "-C", str(ROOT), "worktree", "list"], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository's history")
def test_a_side_runs_the_revision_and_its_worktree_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests" / "benchmarks")
    from compare import Side, checked_out

    before = worktrees()
    with checked_out("HEAD") as folder:
        assert len(worktrees()) == len(before) + 1
        side = Side(folder, 1)  # refuses another tree's package
        side.close()
        assert side.package == folder / "bats_lab"
    assert not folder.exists() and worktrees() == before
    sys.modules.pop("compare")
