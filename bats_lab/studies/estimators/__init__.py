"""Gradient estimators of the time grid, compared over paired seeds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["comparison", "plots", "report"],
    {
        "comparison": [
            "ESTIMATOR_RULES",
            "ESTIMATOR_STEPS",
            "WIDTHS",
            "NOTEBOOK",
            "compare_estimators",
            "estimator_configs",
            "open_gradients",
            "paired",
            "run_estimator_experiments",
        ],
        "plots": ["plot_estimator_agreement", "plot_estimator_gain", "plot_estimators", "plot_smooth_grid"],
        "report": ["describe_estimators", "estimator_table"],
    },
)
