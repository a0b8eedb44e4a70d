"""The thesis' study and its claims, held against made-up results in which each holds, and in which it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from bats_lab import thesis
from bats_lab.cli import main
from bats_lab.config import LATENCY_TIMES, PRESETS
from bats_lab.plots import report
from bats_lab.runs.results import open_results
from bats_lab.studies import in_markdown
from bats_lab.studies.thesis import study
from bats_lab.studies.thesis.claims import CLAIMS, judge
from bats_lab.studies.thesis.study import PLANS, Plan, remedy_configs, stand_in, study_configs

EPOCHS = 4


def results(dataset: str, *, seeds: int = 3, **changes: dict[float, Any]) -> xr.Dataset:
    """Results of a study in which every time step does equally well, but for what is changed, by time step in ms.

    Accuracy (%), hidden spikes, confidence at the end, decision time (ms) and the second layer's norm can be changed.
    """
    steps = [round(step * 1e-3, 9) for step in PLANS[dataset].delta_t]
    layers = [*(f"hidden_{i + 1}" for i in range(len(PRESETS[dataset]["hidden"]))), "output"]
    usual = {"accuracy": [90, 95, 96, 97], "hidden_spikes": 500, "confidence": 0.9, "decision": 60, "norm": 100}
    values = {
        name: [changes.get(name, {}).get(round(1e3 * s, 6), default) for s in steps] for name, default in usual.items()
    }
    noise = np.linspace(-0.05, 0.05, seeds) if seeds > 1 else np.zeros(1)

    def over(values: Any, *shape: int) -> np.ndarray:
        """Spread values by time step over seeds (with some noise) and what else there is."""
        whole = np.asarray(values, float).reshape(len(steps), 1, *shape)
        return whole + noise.reshape(1, -1, *(1 for _ in shape))

    spikes = np.full((len(steps), seeds, 2, EPOCHS, len(layers)), 40.0)
    spikes[..., 0] = over(values["hidden_spikes"], 1, 1)
    accuracy = np.broadcast_to(over(values["accuracy"], 1, EPOCHS) / 100, (len(steps), seeds, 2, EPOCHS))
    rise = np.linspace(0, 1, len(LATENCY_TIMES))
    confidence = np.broadcast_to(
        np.asarray(values["confidence"])[:, None, None, None] * rise, (len(steps), seeds, EPOCHS, len(rise))
    )
    decision = np.broadcast_to(np.asarray(values["decision"])[:, None, None] * 1e-3, (len(steps), seeds, EPOCHS))
    norm = np.broadcast_to(
        np.asarray(values["norm"], float)[:, None, None, None], (len(steps), seeds, EPOCHS, len(layers))
    )
    return xr.Dataset(
        {
            "accuracy": (("delta_t", "seed", "split", "epoch"), accuracy),
            "spike_count": (("delta_t", "seed", "split", "epoch", "layer"), spikes),
            "confidence": (("delta_t", "seed", "epoch", "time"), confidence),
            "decision_time": (("delta_t", "seed", "epoch"), decision),
            "weight_norm": (("delta_t", "seed", "epoch", "layer"), norm),
            "n_samples": (("split",), [60_000, 10_000]),
        },
        {
            "delta_t": list(steps), "seed": range(seeds), "split": ["train", "test"], "epoch": range(1, EPOCHS + 1),
            "layer": layers, "time": list(LATENCY_TIMES), "dataset": dataset, "rule": "drop",
        },
    )  # fmt: skip


FALLS = [80, 60, 40, 20]
LATER = {s: 60 + s for s in (0.1, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15)}

LESS_SURE = {s: 0.9 - 0.03 * s for s in LATER | {0: 0}}

#: Data set, place of a claim among those of it, what is changed for it to hold, and for it not to.
CASES = [
    ("mnist", 0, {"accuracy": {9: FALLS, 10: FALLS}}, {"accuracy": {9: FALLS}}),
    ("mnist", 1, {"accuracy": {8: FALLS}}, {"accuracy": {3: [90, 95, 96, 96.2]}}),
    ("mnist", 2, {"hidden_spikes": {4: 400}}, {"hidden_spikes": {0.5: 400}}),
    ("mnist", 2, {"hidden_spikes": {4: 400}}, {"hidden_spikes": {4: 400}, "accuracy": {4: [90, 95, 96, 96.2]}}),
    ("mnist", 3, {"confidence": {0.5: 0.95}}, {"confidence": {7: 0.95}}),
    ("mnist", 4, {"decision": LATER}, {"decision": {0.5: 80}}),
    ("emnist", 0, {"accuracy": {0: [90, 95, 96, 98]}}, {"accuracy": {5: [90, 95, 96, 98]}}),
    ("emnist", 1, {"accuracy": {8: [90, 95, 95, 95]}}, {}),
    ("emnist", 2, {"accuracy": {s: [60, 80, 70, 50] for s in (9, 10, 12, 15)}}, {"accuracy": {9: [60, 40, 20, 10]}}),
    ("emnist", 3, {"hidden_spikes": {2: 400}}, {}),
    ("emnist", 4, {}, {"confidence": {8: 0.5}}),
    ("emnist", 5, {"decision": LATER}, {}),
    ("emnist", 6, {"hidden_spikes": {5: 400}}, {"hidden_spikes": {0: 400}, "accuracy": {0: [90, 95, 96, 98]}}),
    ("fashion_mnist", 0, {"accuracy": {5: [80, 85, 70, 60]}}, {}),
    ("fashion_mnist", 1, {"accuracy": {3: [90, 95, 96, 97.2]}}, {"accuracy": {4: [90, 95, 96, 97.2]}}),
    ("fashion_mnist", 2, {"hidden_spikes": {3: 400}}, {}),
    ("fashion_mnist", 3, {"confidence": LESS_SURE}, {"confidence": {10: 0.95}}),
    ("fashion_mnist", 4, {"decision": LATER}, {}),
    ("fashion_mnist", 5, {"accuracy": {5: [80, 85, 70, 60]}}, {}),
    ("fashion_mnist", 6, {"norm": {6: 30}}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "place", "good", "bad"), CASES)
def test_claim_is_told_from_its_opposite(dataset: str, place: int, good: Any, bad: Any) -> None:
    held, refuted = (judge(dataset, results(dataset, **changes))[place] for changes in (good, bad))
    assert (held.holds, held.word) == (True, "holds"), held.numbers
    assert (refuted.holds, refuted.word) == (False, "does not hold"), refuted.numbers
    assert held.text == CLAIMS[dataset][place].text and held.numbers and refuted.numbers


def test_every_claim_has_a_case() -> None:
    assert {(d, i) for d, claims in CLAIMS.items() for i in range(len(claims))} == {case[:2] for case in CASES}


def test_fewer_spikes_of_one_seed_prove_nothing() -> None:
    verdict = judge("mnist", results("mnist", seeds=1, hidden_spikes={4: 400}))[2]
    assert verdict.holds is None and "one seed cannot tell" in verdict.numbers


@pytest.mark.parametrize("dataset", PLANS)
def test_claims_of_which_runs_are_missing_are_open(dataset: str) -> None:
    few = results(dataset).isel(delta_t=[0])
    assert {v.holds for v in judge(dataset, few)} <= {None, False}
    needed = next(v for v in judge(dataset, few) if "no finished run" in v.numbers)
    assert needed.word == "open" and " ms" in needed.numbers


def test_verdicts_read_only_rule_drop() -> None:
    drop, graded = (results("mnist", accuracy={9: FALLS, 10: last}) for last in (FALLS, [90, 95, 96, 97]))
    both = xr.concat([graded.assign_coords(rule="graded"), drop], "rule")
    assert judge("mnist", both)[0].holds is True and judge("mnist", graded)[0].holds is False


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="no study 'cifar'; there are mnist, emnist, fashion_mnist"):
        judge("cifar", results("mnist"))
    with pytest.raises(ValueError, match="differ in learning_rate too"):
        judge("mnist", xr.concat([results("mnist")] * 2, xr.Variable("learning_rate", [0.1, 0.2])))


def test_stand_in_is_named() -> None:
    assert stand_in(results("mnist")) == ""
    assert "emnist here is a stand-in" in stand_in(results("emnist"))
    assert "not on the thesis' data" in stand_in(results("mnist").assign_coords(dataset="mnist_small"))


def test_study_has_all_time_steps_of_a_seed_before_the_next() -> None:
    configs = study_configs("emnist")
    assert [1e3 * c.delta_t for c in configs[:13]] == pytest.approx(PLANS["emnist"].delta_t) and len(configs) == 39
    assert [c.seed for c in configs] == sorted(c.seed for c in configs)
    assert {c.keep_weights for c in configs if c.seed} == {"none"}
    assert {1e3 * c.delta_t for c in configs if c.keep_weights == "last"} == set(PLANS["emnist"].kept)
    assert all(c.hidden == (800,) and c.dataset == "emnist" and c.epochs == 10 and c.rule == "drop" for c in configs)


def test_remedy_changes_the_count_in_the_error_alone() -> None:
    configs = study_configs("mnist", seeds=2)
    mended = remedy_configs("mnist", seeds=2)
    assert [(1e3 * c.delta_t, c.seed) for c in mended] == [(s, seed) for seed in (0, 1) for s in PLANS["mnist"].mended]
    own = {(c.delta_t, c.seed): c for c in configs}
    for c in mended:
        as_before = own[c.delta_t, c.seed].replace(keep_weights="none", keep_samples=0)
        assert c.error_counts == "merge" and c.replace(error_counts="own") == as_before


def test_remedy_is_held_against_the_same_seeds() -> None:
    mended = results("mnist", seeds=1, accuracy={9: FALLS}).sel(delta_t=[0.008, 0.009])
    rows = thesis.remedy_table(results("mnist", seeds=2), mended).set_index("Δt")
    row = rows.loc["9 ms"]
    assert row["test, remedy (%)"] == "20.00" and row["gained (points)"] == "-77.0" and set(rows["seeds"]) == {"1"}
    assert list(rows.index) == ["8 ms", "9 ms"]


def test_quick_look_has_the_networks_of_the_study() -> None:
    configs = study_configs("fashion_mnist", quick=True)
    assert {(c.dataset, c.hidden, c.batch_size, c.epochs, c.seed) for c in configs} == {
        ("mnist_small", (400, 400), 5, 3, 0)
    }


@pytest.mark.parametrize(("name", "seeds", "message"), [("all", None, "no study 'all'"), ("mnist", 0, "seeds is 0")])
def test_bad_study_is_refused(name: str, seeds: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study_configs(name, seeds=seeds)


def test_report_says_what_was_found() -> None:
    verdicts = judge("mnist", results("mnist"))
    sentences = thesis.describe_verdicts(verdicts, 4)(xr.Dataset())
    assert sentences.count("- The thesis: ") == 2 and "**Here: " in sentences
    assert "Below 8 ms" in thesis.describe_verdicts(verdicts, 2)(xr.Dataset())  # a claim about figures 1 and 2
    table = in_markdown(thesis.verdict_table(verdicts)).splitlines()
    assert len(table) == 2 + len(verdicts) and all(line.count("|") == 5 for line in table)
    with pytest.raises(ValueError, match="No claim is of figure 1; there are 2, 3, 4"):
        thesis.describe_verdicts(verdicts, 1)


#: Figures under which the notebook writes what the thesis claims.
FIGURES = {"mnist": {2, 3, 4}, "emnist": {6, 7, 8, 13}, "fashion_mnist": {10, 11, 12, 15, 18}}


@pytest.mark.parametrize("dataset", PLANS)
def test_every_claim_stands_under_a_figure(dataset: str) -> None:
    assert {int(claim.figure.split(", ")[-1]) for claim in CLAIMS[dataset]} == FIGURES[dataset]


def test_silent_classes_are_named(small_results: Path) -> None:
    found = open_results(small_results, large=False)
    assert report.describe_silent_classes(found.assign(class_silent=found["class_silent"] * 0)).startswith("In no run")
    one = found.assign(class_silent=found["class_silent"] * 0 + (found["true_class"] == "3"))
    assert "continuous, drop, seed 0: 1" in report.describe_silent_classes(one)


def test_study_is_run_drawn_and_judged_by_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PLANS, "mnist", Plan((4, 9), 1, (4,), (9,)))
    monkeypatch.setattr(study, "QUICK", {"dataset": "mnist_small", "n_train": 200, "n_test": 100, "epochs": 2})
    assert main(["reproduce", "mnist", "--quick", "--quiet", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert all(claim.text in told for claim in CLAIMS["mnist"]) and "no finished run at Δt of 0.5 ms" in told
    page = (tmp_path / "quick_mnist" / "report.html").read_text()
    assert (
        "not on the thesis\u2019 data" in page
        or "not on the thesis' data" in page
        or "not on the thesis&#39; data" in page
    )
    figures = tmp_path / "quick_mnist" / "figures"
    assert (figures / "figure_02.pdf").exists() and (figures / "figure_01_mended.pdf").exists()
    own, mended = (open_results(tmp_path / "quick_mnist" / folder, large=False) for folder in ("", thesis.REMEDY))
    [row] = thesis.remedy_table(own, mended).to_dict("records")
    assert row["Δt"] == "9 ms" and row["seeds"] == "1"


def test_unknown_study_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "cifar", "--out", str(tmp_path)]) == 2
    assert "no study 'cifar'" in capsys.readouterr().err and not list(tmp_path.iterdir())
