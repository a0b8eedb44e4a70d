"""Study what a digital clock does to a spiking network.

Spiking networks with exact spike times, trained by error backpropagation, on any time grid::

    import bats_lab

    for delta_t in (0, 0.004, 0.008):
        config = bats_lab.Config(dataset="mnist_small", delta_t=delta_t, rule="drop", epochs=3)
        run = bats_lab.run_experiment(config)                 # an xarray.Dataset
        bats_lab.save_run(run, "results/first")               # one run, one file
    results = bats_lab.open_results("results/first")          # all runs of a folder as one Dataset
    print(results.accuracy.sel(split="test").isel(epoch=-1))

What is named here is loaded on first use, so importing the package is fast and needs no plotting library. The names
stand in ``__init__.pyi``, where type checkers and editors read them too.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
