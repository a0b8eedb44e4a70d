"""Why training fails at coarse time steps: what is trained and measured, its plots."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["experiments", "law", "plots", "report", "study", "trained"],
    {
        "experiments": [
            "COLLAPSE_RULES",
            "agreement",
            "cross_test",
            "drive_response",
            "gradient_quality",
            "train_crossed",
        ],
        "law": ["collapse_law", "collapse_step", "law_error", "observed_steps", "scaling_check"],
        "plots": [
            "plot_collapse_law",
            "plot_counts_over_epochs",
            "plot_cross_test",
            "plot_crossed_training",
            "plot_drive_response",
            "plot_error_counts",
            "plot_every_clock",
            "plot_gradient_quality",
            "plot_highest_count",
            "plot_step_along_gradient",
        ],
        "report": [
            "answer",
            "clocks_table",
            "compare_counts",
            "counts_table",
            "gradient_table",
            "law_table",
            "layers_table",
            "lost_under_rules",
            "scaling_table",
            "trained_elsewhere",
        ],
        "study": [
            "COLLAPSE_STEPS",
            "COUNTED",
            "COUNTED_STEPS",
            "EXPERIMENTS",
            "LONG",
            "SMALL_EXPERIMENTS",
            "collapse_configs",
            "long_configs",
            "open_experiments",
            "run_collapse_experiments",
        ],
        "trained": ["CLOCKS", "TRAINED_EXPERIMENTS", "TRAINED_ON", "every_clock", "one_layer", "run_trainings"],
    },
)
