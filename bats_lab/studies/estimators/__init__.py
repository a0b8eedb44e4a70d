"""Gradient estimators of the time grid, compared over paired seeds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["plots", "report", "study"],
    {
        "plots": ["plot_estimator_agreement", "plot_estimator_gain", "plot_estimators", "plot_smooth_grid"],
        "report": [
            "agreement_table",
            "compare_estimators",
            "contrasts_table",
            "estimator_summary",
            "estimator_table",
        ],
        "study": [
            "CONTRASTS",
            "ESTIMATOR_RULES",
            "ESTIMATOR_STEPS",
            "WIDTHS",
            "estimator_configs",
            "open_gradients",
            "run_estimator_experiments",
        ],
    },
)
