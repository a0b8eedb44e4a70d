"""What every study has, and the loop that reproduces one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bats_lab.cli import main
from bats_lab.config import Config
from bats_lab.data.registry import DATASETS
from bats_lab.studies.registry import REGISTRY, Row, load_study
from bats_lab.studies.study import Study, reproduce
from bats_lab.sweeps.notebooks import notebook_path


@pytest.mark.parametrize("name", REGISTRY)
def test_every_study_is_whole(name: str) -> None:
    study = load_study(name)
    assert study.name == name and REGISTRY[name].question
    page = notebook_path(study.notebook).read_text()
    assert all(f"{parameter}: " in page for parameter in ("results_dir", *study.parameters))
    quick = study.configs(seeds=2, quick=True)
    travel = {name for name, info in DATASETS.items() if not info.files}
    assert {c.dataset for c in quick} <= travel and {c.seed for c in quick} == {0, 1}
    assert len({c.identity for c in quick}) == len(quick)
    with pytest.raises(ValueError, match="seeds is 0; it must be at least 1"):
        study.configs(seeds=0, quick=False)


def interrupted(folder: Path, **_: object) -> None:
    raise KeyboardInterrupt


def refused(folder: Path, *, seeds: int, quick: bool, **_: object) -> None:
    raise LookupError(f"{seeds} of {folder.name}, quick: {quick}")


def no_configs(*, seeds: int, quick: bool) -> list[Config]:
    return []


STOPPED = Study(name="stopped", seeds=1, configs=no_configs, notebook="26_chip", measure=interrupted)
REFUSED = Study(name="refused", seeds=7, configs=no_configs, notebook="26_chip", measure=refused)


def test_row_of_the_registry_is_all_that_a_study_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(REGISTRY, "stopped", Row(__name__, "STOPPED", "what Ctrl-C does"))
    assert main(["reproduce", "stopped", "--out", str(tmp_path)]) == 130
    assert "Stopped; 0 of 0 runs of stopped are finished. The same command goes on" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["reproduce", "--help"])
    assert "stopped: what Ctrl-C does" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("quick", "seeds", "message"),
    [
        (False, None, "7 of thesis_refused, quick: False"),
        (True, None, "1 of quick_refused, quick: True"),
        (True, 3, "3 of quick_refused, quick: True"),
    ],
)
def test_study_is_measured_with_its_seeds_in_its_folder(
    quick: bool, seeds: int | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(LookupError, match=message):
        reproduce(REFUSED, tmp_path, seeds=seeds, quick=quick)
