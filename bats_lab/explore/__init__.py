"""Explorers: plots with controls, for JupyterLab and Voilà.

Each ``explore_`` function returns an :class:`Explorer`, a widget whose controls can be set from Python as well; where
there is nothing to explore it returns a :class:`Sentence` that says why::

    from bats_lab import explore

    explore.load_bokeh()
    explorer = explore.explore_rasters("results/mnist_study")
    explorer                                        # shows it in a notebook
    explorer.controls["delta_t"].value = 0.004      # the same as moving the slider

Options common to explorers: `results`, an :class:`xarray.Dataset` of one run or of many, or a folder of results;
`source`, such results, of which some runs kept their weights, or a :class:`bats_lab.Network`; `samples`, the images to
be shown (:class:`Samples`; None: the first test images of the data set); `sample`, the one shown first; `delta_t` (s),
`rule` and what else is a control, its value at the start; `state`, values of any controls by name, as
:attr:`Explorer.state` gives them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
