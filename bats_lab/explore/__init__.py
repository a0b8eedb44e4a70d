"""Explorers: plots with controls, for JupyterLab and Voilà.

Each ``explore_`` function returns an :class:`Explorer`, a widget whose controls can be set from Python as well; where
there is nothing to explore it returns a :class:`Sentence` that says why::

    from bats_lab import explore

    explore.load_bokeh()
    explorer = explore.explore_rasters("results/mnist_study")
    explorer                                        # shows it in a notebook
    explorer.controls["delta_t"].value = 0.004      # the same as moving the slider
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
