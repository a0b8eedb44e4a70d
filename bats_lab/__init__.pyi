from . import config, data, engine, errors, explore, network, plots, runs, spikes, studies, sweeps
from .config import Config
from .data.datasets import load_dataset
from .network import interchange
from .network.feedforward import Network
from .runs.experiment import run_experiment
from .runs.files import open_run, save_run
from .runs.results import open_results
from .runs.training import evaluate, train
from .spikes.encoding import encode_images
from .spikes.grid import discretize
from .spikes.trains import Spikes
from .studies import collapse, estimators, thesis
from .studies.chip import deploy, energy
from .sweeps.search import Search, run_search
from .sweeps.sweep import run_sweep

__version__: str
__all__ = [
    "Config",
    "Network",
    "Search",
    "Spikes",
    "collapse",
    "config",
    "data",
    "deploy",
    "discretize",
    "encode_images",
    "energy",
    "engine",
    "errors",
    "estimators",
    "evaluate",
    "explore",
    "interchange",
    "load_dataset",
    "network",
    "open_results",
    "open_run",
    "plots",
    "run_experiment",
    "run_search",
    "run_sweep",
    "runs",
    "save_run",
    "spikes",
    "studies",
    "sweeps",
    "thesis",
    "train",
]
