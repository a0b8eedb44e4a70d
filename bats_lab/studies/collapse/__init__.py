"""Why training fails at coarse time steps: what is trained and measured, its plots."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["experiments", "plots", "report", "study"],
    {
        "experiments": [
            "COLLAPSE_RULES",
            "agreement",
            "cross_test",
            "drive_response",
            "gradient_quality",
            "train_crossed",
        ],
        "plots": [
            "plot_cross_test",
            "plot_crossed_training",
            "plot_drive_response",
            "plot_gradient_quality",
            "plot_highest_count",
            "plot_step_along_gradient",
        ],
        "report": ["gradient_table", "lost_under_rules", "lost_without_training"],
        "study": [
            "COLLAPSE_STEPS",
            "EXPERIMENTS",
            "collapse_configs",
            "open_experiments",
            "run_collapse_experiments",
        ],
    },
)
