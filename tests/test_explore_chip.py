"""The explorer of clocks and words without a browser: set a control's value, look at the data of the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from deployments import STEPS, WORDS, make_deployment, save_deployment
from runs import make_run

from bats_lab import explore, open_results, save_run
from bats_lab.explore.serve import prepare_dashboard
from bats_lab.spikes.rules import RULES
from bats_lab.studies.chip.energy import PACES, deployment_costs
from bats_lab.studies.chip.plots import quantities
from bats_lab.studies.chip.plots.three_way import three_way_table


@pytest.fixture(scope="module")
def deployment() -> xr.Dataset:
    return make_deployment("mnist", "fashion_mnist")


@pytest.fixture(scope="module")
def made(deployment: xr.Dataset) -> explore.Explorer:
    return explore.explore_chip(deployment)


@pytest.fixture
def explorer(made: explore.Explorer) -> Iterator[explore.Explorer]:
    """The explorer, brought back to how it started."""
    start = made.values
    yield made
    with made.together():
        for name, value in start.items():
            made.controls[name].value = value


def cells(explorer: explore.Explorer) -> dict[tuple[str, str], float]:
    columns = explorer.pictures[0].panels[0].columns("cells")
    return {(s, w): v for s, w, v in zip(columns["step"], columns["word"], columns["value"], strict=True)}


def plane(explorer: explore.Explorer, name: str) -> dict[str, Any]:
    return explorer.pictures[1].panels[0].columns(name)


def test_grid_follows_rule_quantity_split_and_data_set(explorer: explore.Explorer, deployment: xr.Dataset) -> None:
    accuracy = 100 * deployment["accuracy"].mean("seed")
    for part, rule, split in (("mnist", "drop", "test"), ("fashion_mnist", "merge", "validation")):
        with explorer.together():
            for name, value in (("part", part), ("rule", rule), ("split", split)):
                explorer.controls[name].value = value
        here = accuracy.sel(dataset=part, rule=rule, split=split)
        assert cells(explorer)["10 ms", "4"] == pytest.approx(here.sel(delta_t=0.01, bits=4).item())
        assert explorer.pictures[0].panels[0].figure.title.text == f"rule {rule}\n{split} accuracy (%)"
    explorer.controls["quantity"].value = "decision_time"
    time = 1e3 * deployment["decision_time"].sel(dataset="fashion_mnist", rule="merge", split="validation").mean("seed")
    assert cells(explorer)["1 ms", "2"] == pytest.approx(time.sel(delta_t=0.001, bits=2).item())


def test_texts_of_the_cells_are_their_values(explorer: explore.Explorer) -> None:
    explorer.controls["rule"].value = "drop"
    panel = explorer.pictures[0].panels[0]
    texts = {t for name in ("light", "dark") for t in panel.columns(name)["text"]}
    assert texts == {quantities.short(v) for v in cells(explorer).values()}
    for name in ("light", "dark"):
        assert len(panel.columns(name)["text"]) == len(panel.columns(f"{name} spread")["text"]) > 0


@pytest.mark.parametrize("pace", list(PACES))
@pytest.mark.parametrize("hardware", ["Loihi", "Loihi 2"])
def test_energies_follow_hardware_and_pace(
    hardware: str, pace: str, explorer: explore.Explorer, deployment: xr.Dataset
) -> None:
    with explorer.together():
        for name, value in (("quantity", "energy"), ("hardware", hardware), ("pace", pace), ("bits", 4)):
            explorer.controls[name].value = value
    name, factor = ("operations", 1.0) if hardware == "Loihi 2" else (pace, 1e6)
    costs = factor * deployment_costs(deployment)[name].sel(hardware=hardware, dataset="mnist", split="validation")
    expected = costs.mean("seed").sel(rule="clocked", delta_t=0.004, bits=4).item()
    assert cells(explorer)["4 ms", "4"] == pytest.approx(expected)
    points = plane(explorer, "rule clocked")
    assert expected == pytest.approx(
        dict(zip(zip(points["step"], points["word"], strict=True), points["energy"], strict=True))["4 ms", "4"]
    )
    label = explorer.pictures[1].panels[0].figure.xaxis[0].axis_label
    assert ("µJ" in label) == (hardware != "Loihi 2") and hardware in label
    assert ("no published energy" in explorer.numbers.text) == (hardware == "Loihi 2")
    ends = explorer.pictures[1].panels[0].figure.x_range
    ticks = explorer.pictures[1].panels[0].figure.xaxis[0].ticker.ticks
    assert len(ticks) > 1 and all(ends.start <= tick <= ends.end for tick in ticks)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rule": "graded"}, "No price: only rule clocked, on a clock"),
        ({"bits": 32}, "No price: Loihi has no words of 32 bits"),
        ({"hardware": "SpiNNaker 2"}, "The leakage of SpiNNaker 2 is not published; it has a price without leakage"),
        ({"hardware": "45 nm CMOS", "pace": "fast"}, "The speed of 45 nm CMOS is not published"),
    ],
)
def test_what_has_no_price_is_said(values: dict[str, Any], sentence: str, explorer: explore.Explorer) -> None:
    with explorer.together():
        for name, value in ({"quantity": "energy", "delta_t": 0.004, "bits": 4} | values).items():
            explorer.controls[name].value = value
    assert sentence in explorer.sentence.text and not len(plane(explorer, "selected")["energy"])
    if "rule" in values:
        assert not cells(explorer) and "no price" in explorer.numbers.text


def test_plane_marks_the_front_and_the_selected_point(explorer: explore.Explorer, deployment: xr.Dataset) -> None:
    with explorer.together():
        explorer.controls["delta_t"].value = 0.004
        explorer.controls["bits"].value = 2
        explorer.controls["rule"].value = "clocked"
    here = quantities.narrowed(deployment.sel(dataset="mnist"))
    table, _ = three_way_table(here, hardware="Loihi", pace="real_time", split="validation")
    assert sorted(plane(explorer, "front")["energy"]) == pytest.approx(sorted(table["energy"][table["front"]]))
    accuracy = 100 * here["accuracy"].sel(split="validation", rule="clocked", delta_t=0.004, bits=2).mean().item()
    assert plane(explorer, "selected")["accuracy"] == pytest.approx([accuracy])
    corners = explorer.pictures[0].panels[0].columns("selected")
    assert [corners[n][0] for n in ("left", "right", "bottom", "top")] == [1.5, 2.5, -0.5, 0.5]


def test_sentence_tells_all_numbers_of_the_selected_point(explorer: explore.Explorer, deployment: xr.Dataset) -> None:
    with explorer.together():
        explorer.controls["delta_t"].value = 0.01
        explorer.controls["bits"].value = 4
        explorer.controls["rule"].value = "clocked"
    here = deployment.sel(dataset="mnist", rule="clocked", delta_t=0.01, bits=4)
    validation, test = (100 * here["accuracy"].sel(split=s) for s in ("validation", "test"))
    spikes = here["spike_count"].sel(split="validation").sum("layer")
    for words in (
        "10 ms, 4 bits, clocked (mean ± std of 3 seeds)",
        f"{validation.mean():.2f} ± {validation.std(ddof=1):.2f} % of validation images",
        f"{test.mean():.2f} ± {test.std(ddof=1):.2f} % of test images",
        f"{spikes.mean():,.0f} ± {spikes.std(ddof=1):,.0f} spikes",
        "with leakage, in real time",
        "without leakage, in µJ on Loihi",
        "of them from inputs",
        "decided after 7",
    ):
        assert words in explorer.numbers.text


def test_click_on_a_cell_chooses_clock_and_word(explorer: explore.Explorer) -> None:
    source = explorer.pictures[0].panels[0].source("cells")
    for index in (3, 3, 0):
        explorer.controls["delta_t"].value = 0.01
        source.selected.indices = [index]
        step, word = source.data["step"][index], source.data["word"][index]
        chosen = (explorer.controls["delta_t"].label, explorer.controls["bits"].label)
        assert chosen == (step, word) and source.selected.indices == []


def test_click_on_a_point_chooses_its_rule_too(explorer: explore.Explorer) -> None:
    explorer.controls["rule"].value = "drop"
    source = explorer.pictures[1].panels[0].source("rule clocked")
    source.selected.indices = [4]
    values = explorer.values
    assert values["rule"] == "clocked" and explorer.controls["delta_t"].label == source.data["step"][4]
    assert plane(explorer, "selected")["accuracy"] == pytest.approx([source.data["accuracy"][4]])


def test_what_was_not_measured_is_said(explorer: explore.Explorer) -> None:
    with explorer.together():
        explorer.controls["rule"].value = "clocked"
        explorer.controls["delta_t"].value = 0.0
    assert "nothing was measured here" in explorer.numbers.text
    explorer.controls["rule"].value = "drop"
    assert "No price: only rule clocked, on a clock" in explorer.sentence.text and not len(
        plane(explorer, "selected")["energy"]
    )


def test_every_control_has_every_value_there_is(made: explore.Explorer) -> None:
    options = {name: [v[1] if isinstance(v, tuple) else v for v in c.options] for name, c in made.controls.items()}
    assert options["rule"] == list(RULES) and options["delta_t"] == list(STEPS) and options["bits"] == list(WORDS)
    assert options["split"] == ["validation", "test"] and options["part"] == ["mnist", "fashion_mnist"]
    assert made.values["rule"] == "clocked" and made.values["split"] == "validation" and made.values["delta_t"] > 0


def test_folder_of_one_data_set_and_seed_can_be_explored(tmp_path: Path) -> None:
    save_deployment(make_deployment(seeds=(0,)), tmp_path)
    explorer = explore.explore_chip(str(tmp_path), rule="drop", quantity="spikes", hardware="SpiNNaker 2", split="test")
    assert "part" not in explorer.controls and "(1 seed)" in explorer.numbers.text
    assert np.isfinite(list(cells(explorer).values())).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "keep"}, "rule is 'keep'; it must be one of drop"),
        ({"quantity": "speed"}, "quantity is 'speed'; it must be one of accuracy"),
        ({"hardware": "abacus"}, "hardware is 'abacus'; it must be one of Loihi"),
        ({"split": "train"}, "split is 'train'; it must be one of validation, test"),
    ],
)
def test_bad_value_is_answered_with_a_sentence(options: dict[str, str], message: str, deployment: xr.Dataset) -> None:
    told = explore.explore_chip(deployment, **options)
    assert isinstance(told, explore.Sentence) and message in told.text


def test_missing_deployments_are_told_in_a_sentence(tmp_path: Path, deployment: xr.Dataset) -> None:
    for source, message in (
        (tmp_path, f"There is no deployment in {tmp_path}"),
        (deployment.where(deployment["delta_t"] > 1), "Nothing was measured of this deployment yet"),
    ):
        told = explore.explore_chip(source)
        assert isinstance(told, explore.Sentence) and message in told.text
    with pytest.raises(TypeError, match="deployment is a int"):
        explore.explore_chip(3)


def test_dashboard_has_a_tab_for_the_chip_where_there_is_a_deployment(tmp_path: Path) -> None:
    save_run(make_run(), tmp_path)
    assert "chip" not in explore.dashboard(tmp_path).tabs.titles
    save_deployment(make_deployment(), tmp_path)
    for source in (tmp_path, open_results(tmp_path)):
        dashboard = explore.dashboard(source)
        assert dashboard.tabs.titles[6] == "chip"
    dashboard.tabs.selected_index = 6
    assert isinstance(dashboard.explorers["chip"], explore.Explorer)


def test_dashboard_takes_deployments_of_another_folder_and_a_folder_of_nothing_else(tmp_path: Path) -> None:
    runs, chips = tmp_path / "runs", tmp_path / "chips"
    save_run(make_run(), runs)
    save_deployment(make_deployment(), chips)
    titles = explore.dashboard(runs, deployment=chips).tabs.titles
    assert titles[0] == "trade-off" and titles[6] == "chip"
    alone = explore.dashboard(chips)
    assert alone.tabs.titles == ("chip", "neuron", "gradient") and isinstance(alone.explorers["chip"], explore.Explorer)
    (tmp_path / "page").mkdir()
    for folder, options in ((runs, {"deployment": chips}), (chips, {})):
        prepare_dashboard(folder, tmp_path / "page", token="secret", **options)
        source = (tmp_path / "page" / "bats_lab.ipynb").read_text()
        assert str(folder) in source and ("deployment=None" in source) == (not options)
    nothing = explore.dashboard(tmp_path)
    assert isinstance(nothing, explore.Sentence) and str(tmp_path) in nothing.text
