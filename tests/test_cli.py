"""The command line: what it takes and refuses, prints and returns. Sweeps that are stopped are in test_sweep."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import SMALL_SWEEP, make_run
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

import bats_lab
from bats_lab.cli import main, make_parser
from bats_lab.cli.commands import given_values
from bats_lab.config import Config, Parameter, parameters
from bats_lab.data.registry import DATASETS
from bats_lab.runs.files import open_run, run_path
from bats_lab.runs.metrics import summary_text
from bats_lab.runs.results import open_results
from bats_lab.spikes.rules import RULES
from bats_lab.studies.registry import REGISTRY
from bats_lab.sweeps.grid import expand_grid
from bats_lab.sweeps.space import Space

ROOT = Path(__file__).parents[1]
SMALL = ["--n-train=200", "--n-test=100", "--hidden=20", "--threshold-output=0.1"]
COMMANDS = [
    "run",
    "rerun",
    "pack",
    "unpack",
    "sweep",
    "search",
    "status",
    "reproduce",
    "report",
    "import",
    "export",
    "data",
    "lab",
    "dashboard",
    "info",
    "completion",
]
DATA_COMMANDS = ["list", "download", "make", "verify", "where"]


@pytest.fixture(autouse=True)
def same_signals() -> Iterator[None]:
    """Commands take SIGTERM as Ctrl-C; other tests should not."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a command in this process: exit status, output, errors."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as end:
            status = end.code
        out, errors = capsys.readouterr()
        return status, out, errors

    return run


def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start a command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "bats_lab", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        start_new_session=True,
    )


def option(parameter: Parameter) -> str:
    return "--" + parameter.name.replace("_", "-")


def configs_of(*arguments: str) -> list[Config]:
    """The runs that a command line asks for."""
    args = make_parser().parse_args(arguments)
    several = arguments[0] == "sweep"
    values = given_values(args, several=several)
    return expand_grid(values) if several else [Config.from_dict(values)]


# Help, and what the README says


def sub_parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


def test_commands_are_those_of_the_readme(call: Any) -> None:
    status, out, _ = call("--help")
    assert status == 0 and re.findall(r"^    (\w+)(?: +[A-Z]|$)", out, re.MULTILINE) == COMMANDS
    readme = (ROOT / "README.md").read_text()
    named = re.findall(r"^(?:    |)bats-lab (\w+)", readme, re.MULTILINE)
    assert sorted(set(named)) == sorted(COMMANDS)
    assert list(sub_parsers(sub_parsers(make_parser())["data"])) == DATA_COMMANDS


def test_every_command_of_readme_and_docs_is_understood() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    lines = [line for page in pages for line in re.findall(r"^    bats-lab .*", page.read_text(), re.MULTILINE)]
    makefile = (ROOT / "Makefile").read_text()
    [sweep] = re.findall(r"^SWEEP\s*= (.*)", makefile, re.MULTILINE)
    for line in [*lines, f"bats-lab sweep {sweep}"]:
        _, command, *rest = shlex.split(line, comments=True)
        args = make_parser().parse_args([command, *rest])
        if command in ("run", "sweep"):
            assert configs_of(command, *rest), line
        if command == "search":
            assert Space(given_values(args, several=True)).free, line
        assert getattr(args, "study", "all") in {*REGISTRY, "all"}, line
        assert set(getattr(args, "names", [])) <= set(DATASETS), line
        assert args.command.__name__.strip("_") == "_".join([command, *(rest[:1] if command == "data" else [])]), line


@pytest.mark.parametrize("path", [[], ["data"]], ids=str)
def test_bare_command_shows_its_help(call: Any, path: list[str]) -> None:
    assert call(*path) == call(*path, "--help") and call(*path)[0] == 0


def test_examples_in_the_help_are_understood(call: Any) -> None:
    for command in ("run", "sweep"):
        _, out, _ = call(command, "--help")
        lines = re.findall(rf"^  bats-lab {command}.*", out, re.MULTILINE)
        assert len(lines) == 3 and all(configs_of(*shlex.split(line)[1:]) for line in lines)


@pytest.mark.parametrize("path", [[c] for c in COMMANDS] + [["data", c] for c in DATA_COMMANDS], ids=" ".join)
def test_help_of_a_command_names_all_it_takes(call: Any, path: list[str]) -> None:
    parser = make_parser()
    for name in path:
        parser = sub_parsers(parser)[name]
    status, out, _ = call(*path, "--help")
    assert status == 0
    for action in parser._actions:
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction):
            assert all(re.search(rf"(^|[\s,]){name}[\s,=]", out) for name in action.option_strings), action
            assert action.help


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize("parameter", parameters(), ids=lambda p: p.name)
def test_every_parameter_of_a_run_is_an_option_with_its_default(call: Any, command: str, parameter: Parameter) -> None:
    _, out, _ = call(command, "--help")
    [text] = re.findall(rf"^  {option(parameter)} .*?(?=^  -|\Z)", out, re.MULTILINE | re.DOTALL)
    text = " ".join(text.split())
    fits = "where no preset fits"
    words = {"auto_threshold": fits, "wake_classes": fits, "tau_mem": "twice the synaptic one"}
    none = {**words, "tau_syn_layers": "tau_syn in all"}.get(parameter.name, "all")
    default = "the data set's preset" if parameter.from_preset else none if parameter.default is None else None
    assert f"default: {parameter.default if default is None else default})" in text


def test_version_is_that_of_the_package(call: Any) -> None:
    assert call("--version") == (0, f"bats-lab {bats_lab.__version__}\n", "")


# Values


def test_parameters_are_read_as_python_would_write_them() -> None:
    text = {
        "dataset": "emnist", "n_train": "10", "n_test": "all", "validation_fraction": "0.25", "delta_t": "0.001",
        "rule": "graded", "estimator": "surrogate", "surrogate_width": "0.125",
        "error_counts": "merge", "error_layers": "all",
        "duration": "0.3",
        "encoding_window": "0.2", "hidden": "20-10", "tau_syn": "0.1", "tau_mem": "0.1-0.2-0.3",
        "tau_syn_layers": "0.05-0.1-0.2", "threshold_hidden": "0.1-2e-1",
        "threshold_output": "3", "max_spikes_hidden": "7-8", "max_spikes_output": "9", "weight_scale": "2",
        "weight_shift_output": "0.5",
        "weight_bits": "32", "fraction_bits": "3",
        "auto_threshold": "True", "wake_classes": "True",
        "epochs": "3", "batch_size": "4", "test_batch_size": "5", "learning_rate": "1e-3", "learning_rate_decay": ".5",
        "learning_rate_interval": "2", "learning_rate_min": "1e-05", "beta_1": "0.5", "beta_2": "0.6",
        "epsilon": "1e-7", "target_true": "14", "target_false": "2.5", "seed": "6", "dtype": "float64",
        "keep_samples": "0", "keep_weights": "none",
    }  # fmt: skip
    assert list(text) == [p.name for p in parameters()]
    [config] = configs_of("run", *(f"{option(p)}={text[p.name]}" for p in parameters()))
    for p in parameters():
        value = getattr(config, p.name)
        shown = "all" if value is None else "-".join(f"{v:g}" for v in value) if p.type is tuple else str(value)
        given = text[p.name].replace("2e-1", "0.2")
        assert given == shown or float(given) == float(shown), p.name


@pytest.mark.parametrize(("text", "value"), [("", True), ("=no", False), ("=yes", True), ("=none", None)])
def test_flag_takes_a_value_or_none(text: str, value: bool | None) -> None:
    assert configs_of("run", f"--auto-threshold{text}", "--epochs=3") == [Config(auto_threshold=value, epochs=3)]


@pytest.mark.parametrize("text", ["0.0005", "500us", "500µs", "0.5ms", ".5ms", "5e-4", "0.0005s", "0.5 ms", "+0.5ms"])
def test_times_may_carry_their_unit(text: str) -> None:
    assert configs_of("run", f"--delta-t={text}") == [Config(delta_t=0.0005)]


@pytest.mark.parametrize("milliseconds", [1, 3, 57, 130, 350, 1009])
def test_time_in_a_unit_is_the_very_number_in_seconds(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    options = ["--duration=2000ms", f"--tau-syn={milliseconds}ms"]
    assert configs_of("run", *options) == [Config(duration=2, tau_syn=seconds)]


def test_whole_seconds_are_no_whole_number_for_other_parameters() -> None:
    assert configs_of("run", "--duration=2s")[0].duration == 2.0
    with pytest.raises(TypeError, match="epochs is '2s'"):
        configs_of("run", "--epochs=2s")


def test_sweep_takes_several_values_of_every_parameter() -> None:
    several = {str: "a.npz,b.npz", int: "1,2", float: "0.01,0.02", tuple: "10,20", bool: "no,yes"}
    named = {
        "duration": "0.2,0.3",
        "rule": "drop,graded",
        "error_counts": "own,merge",
        "error_layers": "output,all",
        "estimator": "straight_through,delayed",
        "dtype": "float32,float64",
        "keep_weights": "last,none",
        "weight_bits": "4,8",
    }
    for p in parameters():
        values = named.get(p.name, several[p.type])
        clocked = ["--rule=clocked", "--delta-t=4ms"] if p.name == "weight_bits" else []
        assert len(configs_of("sweep", *clocked, option(p), values)) == 2, p.name


def test_sweep_of_layers_separates_runs_by_commas_and_layers_by_dashes() -> None:
    configs = configs_of(
        "sweep", "--hidden=30-20,50-40", "--threshold-hidden=0.2-1e-1", "--max-spikes-hidden", "9-8", "--n-test=5,all"
    )
    assert {c.hidden for c in configs} == {(30, 20), (50, 40)} and {c.n_test for c in configs} == {5, None}
    assert {c.threshold_hidden for c in configs} == {(0.2, 0.1)} and len(configs) == 4


# What is refused

BAD = [
    (["run", "--delta-t=-1"], "delta_t is -1.0; it must be a number at least 0."),
    (["run", "--delta-t", "-1ms"], "delta_t is -0.001; it must be a number at least 0."),
    (["run", "--delta-t", "-1e-3"], "delta_t is -0.001; it must be a number at least 0."),
    (["run", "--delta-t=4mm"], "delta_t is '4mm'; it must be a float; did you mean 4ms?"),
    (["run", "--delta-t=1mss"], "delta_t is '1mss'; it must be a float; did you mean 1ms?"),
    (["run", "--delta-t", "4"], "delta_t is 4 s; it must be at most the duration, 0.2 s; did you mean 4ms?"),
    (["run", "--delta-t=1e1ms"], "delta_t is '1e1ms'; it must be a float."),
    (["run", "--epochs=two"], "epochs is 'two'; it must be an int."),
    (["run", "--epochs=1.5"], "epochs is 1.5; it must be an int."),
    (["run", "--epochs=1,2"], "epochs is '1,2'; it must be an int."),
    (["run", "--rule=dorp"], f"rule is 'dorp'; it must be one of {', '.join(RULES)}."),
    (["run", "--hidden=-5"], "hidden is (-5,); it must be entries that are each a number at least 1."),
    (["run", "--hidden=20-"], "hidden is ''; it must be an int."),
    (["run", "--hidden=20-10", "--threshold-hidden=1-2-3"], "it must have one entry, or one for each of the 2"),
    (["run", "--auto-threshold=perhaps"], "auto_threshold is 'perhaps'; it must be a bool."),
    (["run", "--rule=clocked"], "rule is 'clocked' with delta_t 0; a clock needs a time step above 0."),
    (["run", "--dataset=mnits"], "dataset is 'mnits'; it must be one of mnist_small"),
    (["run", "--device=abacus"], "device is 'abacus'; it must be one of auto, cuda, cpu"),
    (["run", "--out=PLACE/file"], "a file; it must be a folder, which is made if it is not there."),
    (["run", "--out=s4://bucket/results"], "'s4://bucket/results' is a URL of no store that fsspec knows"),
    (["run", "--threads=-1"], "threads is -1; it must be 0 (one a core) or at most"),
    (["run", "--detla-t=1"], "'--detla-t=1' is no option of this command; did you mean --delta-t?"),
    (["run", "--delta"], "'--delta' is no option of this command; did you mean --delta-t?"),
    (["run", "--seeds=3"], "'--seeds=3' is no option of this command; did you mean --seed?"),
    (["run", "--epochs"], "argument --epochs: expected one argument."),
    (["run", "--rule=--"], "argument --rule: expected one argument."),
    (["run", "mnist"], "'mnist' is no option of this command."),
    (["sweep", "--delta-t=0,x"], "delta_t is 'x'; it must be a float."),
    (["sweep", "--delta-t=0,"], "delta_t is ''; it must be a float."),
    (["sweep", "--seeds=0"], "seeds is 0; it must be a number of seeds, at least 1, or a list of seeds."),
    (["sweep", "--seeds=x"], "seeds is 'x'; it must be a number of seeds, or seeds separated by commas."),
    (["sweep", "--seeds=2", "--seed=1"], "seed and seeds are both given; give the one or the other."),
    (["sweep", "--jobs=x"], "argument --jobs: invalid int value: 'x'."),
    (["sweep", "--jobs=-1"], "jobs is -1; it must be 0, for as many as there are cores, or more."),
    (["sweep", "--threads=9999"], "threads is 9999; it must be 0 (one a core) or at most"),
    (["sweep", "--timeout=0"], "timeout is 0; it must be above 0, in seconds."),
    (["sweep", "--job=2"], "'--job=2' is no option of this command; did you mean --jobs?"),
    (["sweep", "--out=PLACE/file"], "a file; it must be a folder, which is made if it is not there."),
    (["sweep", "--out=s3:///"], "'s3:///' names no folder of a store; a URL is as s3://bucket/folder."),
    (["reproduce", "chip", "--out=s3://bucket/x"], "out is 's3://bucket/x', a URL; a study works in a folder"),
    (["reproduce", "chip", "--seeds=100000000000"], "seeds is 100000000000; it must be at most 100000."),
    (["report"], "the following arguments are required: folder."),
    (["data", "verify", "emnits"], "dataset is 'emnits'; it must be one of"),
    (["data", "download", "emnits"], "did you mean emnist?"),
    (["data", "download"], "the following arguments are required: NAME."),
    (["data", "list", "--data-dri=x"], "'--data-dri=x' is no option of this command; did you mean --data-dir?"),
    (["info", "--verbose"], "'--verbose' is no option of this command."),
    (["rnu"], "invalid choice: 'rnu'"),
    (["completion", "csh"], "shell is 'csh'; it must be one of bash, zsh, fish."),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a) or "nothing" for a, _ in BAD])
def test_bad_input_is_one_sentence_and_status_2_before_any_work(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    status, out, errors = call(*(a.replace("PLACE", str(tmp_path)) for a in arguments))
    assert (status, out) == (2, "")
    assert message in errors and re.fullmatch(r"bats-lab( \w+)*: .*[.?]\n", errors)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "nowhere"], "There are no results in "),
        (["dashboard", "nowhere"], "There is no folder of results nowhere."),
        (["dashboard", "."], ". holds no finished run."),
        (["run", "--dataset=missing.npz", "--checkpoint"], "missing.npz"),
        (["run", "--dataset=missing.npz"], "missing.npz"),
        (["run", "--dataset=broken.npz"], "broken.npz"),
    ],
)
def test_file_that_cannot_be_used_is_one_sentence_and_status_1(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.npz").write_text("no zip")
    status, out, errors = call(*arguments)
    assert (status, out) == (1, "") and message in errors and re.fullmatch("bats-lab: .*\n", errors)
    assert [p.name for p in tmp_path.iterdir()] == ["broken.npz"]


def test_dashboard_refuses_a_folder_before_it_imports_what_draws() -> None:
    code = (
        "import sys; from bats_lab.cli import main; print(main(['dashboard', 'no/where']), 'holoviews' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 False\n"


def test_dashboard_is_served_without_a_word_and_to_nobody_else(small_results: Path, tmp_path: Path) -> None:
    port, written = free_port(), tmp_path / "written"
    address = f"http://127.0.0.1:{port}"
    with start("dashboard", small_results, "--no-browser", f"--port={port}", **jupyter_folders(tmp_path)) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            found = re.fullmatch(rf"dashboard: {re.escape(address)}/\?token=([\w-]{{40,}})  \(Ctrl-C ends it\)\n", line)
            assert found, line
            page = wait_for_page(f"{address}/?token={found[1]}", process).decode()
            # Who does not know the token sees the question for it.
            assert "kernelId" not in wait_for_page(f"{address}/", process).decode()
            kernel = re.search(r'"?kernelId"?: "([\w-]+)"', page)
            assert kernel
            channel = f"ws://127.0.0.1:{port}/api/kernels/{kernel[1]}/channels"
            code = f"open({str(written)!r}, 'w')"
            for query, host in (("", None), (f"?token={found[1]}", "elsewhere.example")):
                with pytest.raises(HTTPClientError, match="403"):
                    asyncio.run(execute(channel + query, code, host))
            assert "kernel_info_reply" in asyncio.run(execute(f"{channel}?token={found[1]}", code))
        finally:
            process.terminate()
            out, errors = process.communicate(timeout=60)
    assert all(line.startswith("403 GET /api/kernels/") for line in errors.splitlines()), errors
    assert "voila_finish" in page and "Traceback" not in page and out == "" and not written.exists()


async def execute(channel: str, code: str, host: str | None = None) -> list[str]:
    """Ask a kernel to execute code and then what it is, and return the kinds of its answers."""
    opened = await websocket_connect(HTTPRequest(channel, headers={"Host": host} if host else None))
    for kind, content in (("execute_request", {"code": code, "silent": False}), ("kernel_info_request", {})):
        header = {"msg_id": kind, "msg_type": kind, "session": "test", "username": "", "version": "5.3"}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        await opened.write_message(json.dumps(message | {"channel": "shell", "buffers": []}))
    kinds: list[str] = []
    while not kinds or kinds[-1] != "kernel_info_reply":
        answer = await asyncio.wait_for(opened.read_message(), 60)
        kinds.append(json.loads(answer or "{}").get("msg_type", ""))
    opened.close()
    return kinds


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command_and_parameter(call: Any, shell: str) -> None:
    status, out, errors = call("completion", shell)
    assert (status, errors) == (0, "")
    for word in [*COMMANDS, *DATA_COMMANDS, *(option(p).removeprefix("--") for p in parameters())]:
        assert re.search(rf"\b{word}\b", out), word


#: What is typed, and what a shell makes of its last word.
COMPLETED = {
    "bats-lab sweep --thres": ["--threshold-hidden", "--threshold-output"],
    "bats-lab sweep --rule gr": ["graded"],
    "bats-lab reproduce fash": ["fashion_mnist"],
    "bats-lab report res": ["results"],
    "bats-lab run --out res": ["results"],
}


def test_bash_completes_options_values_and_folders(call: Any, tmp_path: Path) -> None:
    (tmp_path / "completion").write_text(call("completion", "bash")[1])
    (tmp_path / "results").mkdir()
    for typed, offered in COMPLETED.items():
        words = f"COMP_WORDS=({typed}); COMP_CWORD={len(typed.split()) - 1}"
        script = f"source completion; {words}; _shtab_bats_lab; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.split() == offered, typed


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish_completes_options_values_and_folders(call: Any, tmp_path: Path) -> None:
    (tmp_path / "completion").write_text(call("completion", "fish")[1])
    (tmp_path / "results").mkdir()
    for typed, offered in COMPLETED.items():
        script = f"source completion; complete -C '{typed}'"
        done = subprocess.run(["fish", "-N", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert [line.split("\t")[0].rstrip("/") for line in done.stdout.splitlines()] == offered, typed


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_completes_options_values_and_folders_before_any_set_up(call: Any, tmp_path: Path) -> None:
    pexpect = pytest.importorskip("pexpect")
    (tmp_path / "completion").write_text(call("completion", "zsh")[1])
    (tmp_path / "results").mkdir()
    environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(tmp_path)}
    shell = pexpect.spawn("zsh", ["-f", "-i"], cwd=str(tmp_path), env=environment, encoding="utf-8", timeout=60)
    # Completion of fpath asks about folders of others; -u in its place says no.
    shell.sendline("PS1='> '; compinit() { unfunction compinit; autoload -Uz +X compinit; compinit -u }")
    shell.sendline('eval "$(cat completion)"; setopt NO_LIST_AMBIGUOUS; echo rea""dy')
    shell.expect("ready")
    for typed, offered in COMPLETED.items():
        shell.send(f"{typed}\t\t")
        for word in offered:
            shell.expect(re.escape(word.removeprefix("--")))
        shell.send("\x15\n")  # clears the line
    shell.close(force=True)


def test_debug_shows_where_an_error_comes_from(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="delta_t is"):
        call("run", "--delta-t=-1", "--debug")
    monkeypatch.setenv("BATS_LAB_DEBUG", "1")
    with pytest.raises(ValueError, match="delta_t is"):
        call("run", "--delta-t=-1")


# Commands at work


@pytest.mark.filterwarnings("ignore:The output neurons of")
def test_run_trains_and_saves_and_is_done_only_once(call: Any, tmp_path: Path) -> None:
    command = ["run", *SMALL, "--epochs=2", "--delta-t=4ms", "--checkpoint", "--out", tmp_path]
    status, out, errors = call(*command)
    [config] = configs_of("run", *SMALL, "--epochs=2", "--delta-t=0.004")
    assert (status, errors) == (0, "")
    first, second, path = out.splitlines()
    assert re.match(r"epoch 1/2: test accuracy \d+\.\d\d%, \d+ hidden and \d+\.\d output spikes a sample, ", first)
    assert second.startswith("epoch 2/2: ") and Path(path) == run_path(tmp_path, config)
    accuracy = open_run(path)["accuracy"].sel(split="test").values.ravel()
    assert f"test accuracy {accuracy[-1]:.2%}," in second
    assert [p.name for p in tmp_path.iterdir() if p.name == "checkpoints"] == []

    before = Path(path).stat().st_mtime_ns
    assert call(*command) == (0, f"This run is finished already: {path}\n", "")
    assert Path(path).stat().st_mtime_ns == before


@pytest.mark.filterwarnings("default")
def test_warning_is_one_line(call: Any, tmp_path: Path) -> None:
    status, _, errors = call("run", *SMALL, "--epochs=1", "--delta-t=20ms", "--n-train=20", "--out", tmp_path)
    assert status == 0
    assert errors.splitlines()[0].startswith("warning: The true class's target of 15 spikes cannot be reached: rule")


def test_run_that_diverges_is_one_sentence_and_status_1(call: Any, tmp_path: Path) -> None:
    status, out, errors = call("run", *SMALL, "--learning-rate=1e39", "--out", tmp_path)
    assert (status, out) == (1, "")
    assert re.fullmatch(r"bats-lab: Training diverged in epoch 1: .* of layer hidden_1 are not finite; .*\n", errors)


@pytest.mark.parametrize(
    ("sent", "options", "how"),
    [
        (signal.SIGINT, ["--checkpoint"], " The same command goes on from the last epoch."),
        (signal.SIGTERM, [], ""),
    ],
)
def test_run_that_is_stopped_says_how_to_go_on(
    tmp_path: Path, sent: signal.Signals, options: list[str], how: str
) -> None:
    with start("run", *SMALL, "--epochs=100000", "--out", tmp_path, *options) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("epoch 1/100000")
        process.send_signal(sent)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, f"bats-lab: Stopped.{how}\n")
    assert bool(list(tmp_path.rglob("*.npz"))) == bool(options) and not list(tmp_path.glob("run-*"))


def sweep_options() -> list[str]:
    """What makes the sweep of `small_results` on the command line."""
    values = {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in SMALL_SWEEP.items()}
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]


def test_finished_sweep_prints_its_table_and_where_it_is(
    call: Any, small_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_results.parent)
    status, out, errors = call("sweep", *sweep_options(), "--out", small_results.name, "--no-report", "--quiet")
    assert (status, errors) == (0, "")
    heading, *rows = out.strip().splitlines()[:3]
    assert " ".join(heading.split()) == (
        "dataset Δt (ms) rule runs accuracy hidden spikes output spikes confidence decision (ms)"
    )
    accuracy = open_results(small_results)["accuracy"].sel(split="test").isel(epoch=-1).mean("seed").values
    expected = [["mnist_small", step, "drop", "2", f"{a:.2%}"] for step, a in zip("04", accuracy, strict=True)]
    assert [row.split()[:5] for row in rows] == expected
    assert re.fullmatch(rf"results: {small_results.name}  \(\d+ s\)", out.strip().splitlines()[-1])


def test_status_tells_where_the_sweep_of_a_folder_stands(call: Any, small_results: Path, tmp_path: Path) -> None:
    status, out, _ = call("status", str(small_results))
    lines = out.splitlines()
    assert status == 1 and lines[0] == f"{small_results}: 4 of 5 runs done, 1 failed, 0 pending"
    assert re.fullmatch(r"sweep of \S+ on \S+, process \d+: over", lines[1])
    assert lines[2].startswith("failed: delta_t 0.0, learning_rate 1e+39, seed 0: DivergedError: ")
    assert Path(lines[3].strip()).is_file()
    assert call("status", str(small_results), "--watch") == (status, out, "")
    assert call("status", str(tmp_path))[1] == f"{tmp_path}: 0 finished runs; no sweep has been started here.\n"
    assert call("status", str(tmp_path / "none"))[0] == 1


def test_dry_run_tells_what_would_run_and_runs_nothing(call: Any, small_results: Path, tmp_path: Path) -> None:
    files = sorted(small_results.rglob("*"))
    more = [o for o in sweep_options() if not o.startswith("--seed")] + ["--seed=0,1,2", "--jobs=2", "--threads=1"]
    status, out, _ = call("sweep", *more, "--out", str(small_results), "--dry-run")
    lines = out.splitlines()
    assert status == 0 and lines[0] == "2 runs to do, 4 finished before"
    assert lines[1:3] == ["  delta_t 0.0, seed 2", "  delta_t 0.004, seed 2"]
    assert re.fullmatch(r"time:  about 0:00:0\d, 2 at a time with 1 threads each", lines[3])
    assert re.fullmatch(r"disk:  about 0\.\d+ MB of \S+ GB free", lines[4])
    assert sorted(small_results.rglob("*")) == files


@pytest.mark.parametrize("sampler", ["random", "optuna"])
def test_dry_run_of_a_search_tells_what_would_run_and_runs_nothing(call: Any, tmp_path: Path, sampler: str) -> None:
    pytest.importorskip("optuna")
    space = [*SMALL, "--learning-rate=1e-4..1e-2:log", f"--sampler={sampler}", "--trials=7", "--jobs=2", "--threads=1"]
    status, out, _ = call("search", *space, "--out", tmp_path / "found", "--dry-run")
    lines = out.splitlines()
    assert status == 0 and lines[0] == "7 runs to do, the first:" and list(tmp_path.iterdir()) == []
    assert len(set(lines[1:6])) == 5 and all(re.fullmatch(r"  learning_rate 0\.\d+", line) for line in lines[1:6])
    assert re.fullmatch(
        r"time:  about 0:\d\d:\d\d, less what is ended early, 2 at a time with 1 threads each", lines[6]
    )
    assert re.fullmatch(r"disk:  about \S+ MB of \S+ GB free", lines[7])
    assert lines[8:] == [f"into:  {tmp_path / 'found'}"]


def test_table_of_networks_that_never_decide_has_a_dash() -> None:
    run = make_run()
    run["decision_time"][:] = np.nan
    assert summary_text(run).split()[-1] == "–"


def test_sweep_with_a_run_that_fails_names_it_and_reports_the_others(
    call: Any, small_results: Path, tmp_path: Path
) -> None:
    out = tmp_path / "swept"
    shutil.copytree(small_results, out)
    options = [o for o in sweep_options() if not o.startswith("--seed")]
    options += ["--seed=0", "--delta-t=0", "--learning-rate=0.003,1e39"]
    status, printed, errors = call("sweep", *options, "--out", out)
    assert status == 1
    assert "1 of 2 runs failed:\n  learning_rate 1e+39: DivergedError: Training diverged in epoch 1" in printed
    [notebook] = re.findall(r"^    (\S+\.failed\.ipynb)$", printed, re.MULTILINE)
    assert Path(notebook).is_file()
    [page] = re.findall(r"^report:  (\S+)$", printed, re.MULTILINE)
    assert Path(page) == out / "report.html" and Path(page).is_file()
    assert "[2/2] learning_rate 1e+39: failed: DivergedError" in errors


# Data


def test_data_is_looked_for_where_the_option_or_the_environment_says(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATS_LAB_DATA", str(tmp_path / "a"))
    assert call("data", "where") == (0, f"{tmp_path / 'a'}\n", "")
    assert call("data", "where", "--data-dir", tmp_path) == (0, f"{tmp_path}\n", "")


def test_data_list_tells_what_is_there(call: Any, tmp_path: Path) -> None:
    status, out, _ = call("data", "list", "--data-dir", tmp_path)
    *lines, last = out.splitlines()
    states = {line.split()[0]: line.split()[1] for line in lines}
    assert status == 0 and last == f"data directory: {tmp_path}"
    assert states == {"mnist_small": "embedded", "yin_yang": "computed", "japanese_vowels": "computed"} | dict.fromkeys(
        ("mnist", "fashion_mnist", "emnist", "spoken_digits"), "missing"
    )


def test_data_verify_fails_for_what_is_damaged_and_for_what_was_named_and_is_missing(call: Any, tmp_path: Path) -> None:
    place = ["--data-dir", tmp_path]
    status, out, _ = call("data", "verify", *place)
    assert status == 0 and out.startswith("mnist_small: embedded\nmnist: missing\n")
    assert call("data", "verify", "mnist_small", *place) == (0, "mnist_small: embedded\n", "")
    assert call("data", "verify", "mnist_small", "mnist", *place)[0] == 1
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    status, out, _ = call("data", "verify", *place)
    assert status == 1 and "mnist: missing\n  train-images-idx3-ubyte.gz: damaged (" in out


def test_data_download_says_where_the_data_is_or_that_it_could_not_be_had(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, _ = call("data", "download", "mnist_small")
    assert status == 0 and Path(out.strip().removeprefix("mnist_small: ")).exists()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: a mirror that is not there
        mirror = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        monkeypatch.setitem(DATASETS, "mnist", replace(DATASETS["mnist"], mirrors=(mirror,)))
        status, out, errors = call("data", "download", "mnist", "--data-dir", tmp_path / "not" / "there")
    assert (status, out) == (1, "") and not list(tmp_path.iterdir())
    assert re.search(rf"bats-lab: mnist could not be downloaded; tried {mirror} \(.*put the files by hand into", errors)


# Information, and JupyterLab


def test_info_tells_versions_devices_and_data(call: Any, tmp_path: Path) -> None:
    status, out, errors = call("info", "--data-dir", tmp_path)
    assert (status, errors) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"bats_lab     {bats_lab.__version__} in {ROOT / 'bats_lab'}"
    found = {line[:13].strip(): line[13:] for line in lines[1:]}
    assert found["numpy"] == np.__version__ and found["device cpu"] and found["data in"] == str(tmp_path)
    assert "  mnist         missing" in lines and "  mnist_small   embedded" in lines


def test_lab_opens_on_the_notebooks(tmp_path: Path) -> None:
    port = free_port()
    options = ["--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0"]
    own = jupyter_folders(tmp_path)
    with start("lab", "--folder", tmp_path / "mine", "--", *options, "--IdentityProvider.token=t", **own) as process:
        try:
            listed = wait_for_page(f"http://127.0.0.1:{port}/api/contents/notebooks?token=t", process)
            plugin = "@jupyterlab/apputils-extension:notification"
            asked = wait_for_page(f"http://127.0.0.1:{port}/lab/api/settings/{plugin}?token=t", process)
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=60)
    names = {entry["name"] for entry in json.loads(listed)["content"]}
    assert names == {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    # "none", its own default, asks at the first start whether to look for news.
    assert json.loads(asked)["schema"]["properties"]["fetchNews"]["default"] == "false"
    assert errors.startswith(f"JupyterLab on {tmp_path / 'mine' / 'notebooks'}\n") and "/lab/tree/notebooks" in errors


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def jupyter_folders(place: Path) -> dict[str, str]:
    """Environment in which Jupyter's own files lie in `place`."""
    return {f"JUPYTER_{name}_DIR": str(place / name) for name in ("CONFIG", "DATA", "RUNTIME")}


def wait_for_page(url: str, process: subprocess.Popen[str]) -> bytes:
    end = time.monotonic() + 120
    while True:
        assert process.poll() is None, process.communicate()
        try:
            with urllib.request.urlopen(url, timeout=10) as page:
                return page.read()
        except OSError:
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.1)
