"""Plots of results: HoloViews elements that Bokeh draws on the screen and Matplotlib on paper.

A plot draws what it is given; it trains, loads and runs nothing. Means over seeds stand with a band of ±1 standard
deviation (n - 1), or with a dot for each of two seeds; each time step has its colour wherever it appears
(:func:`delta_t_color`), and each collision rule its colour, dash and marker. Every plot goes to :func:`save_figure` and
:func:`show_figure`.

Options common to all plots, where they have them:

dataset : xarray.Dataset
    Results of one run or of many, as :func:`bats_lab.open_results` gives them: over `delta_t`, `seed` and `rule`; every
    other dimension has to be narrowed to one value first (:func:`split_results`).
split : str
    ``test``, ``train``, or ``validation`` where runs hold out training samples.
layers : str, sequence of str or None
    Layers to draw, as ``hidden_1`` and ``output``; None: all.
epoch : int or None
    After which epoch; None: each run's last. Weights are of the last, unless runs keep those of each.
delta_t, seed, rule : float (s), int, str or None
    The run that is drawn; each is needed where there are several.
sample : int
    Which of the samples whose spikes were kept.
title : str or None
    Title; None: data set, rule and number of seeds, or the run.

All plots of results raise a `ValueError`, which says what is missing and what can be chosen, where there is no finished
run, no such run, layer, epoch, sample or split, or where the results do not hold or have not kept what is drawn.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
