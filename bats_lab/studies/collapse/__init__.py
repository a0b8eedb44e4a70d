"""Why training fails at coarse time steps: what is trained and measured, its plots."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["experiments", "plots", "report"],
    {
        "experiments": [
            "COLLAPSE_RULES",
            "COLLAPSE_STEPS",
            "EXPERIMENTS",
            "NOTEBOOK",
            "agreement",
            "collapse_configs",
            "combined",
            "cross_test",
            "drive_response",
            "experiment_path",
            "gradient_quality",
            "open_experiment",
            "open_experiments",
            "run_collapse_experiments",
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
        "report": ["describe_collapse"],
    },
)
