"""What a clock does where the timing of the input is the information: runs, jitter and spectra, plots and tables."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["experiments", "plots", "report", "study"],
    {
        "experiments": ["clocked_accuracy", "highest_telling", "input_spectrum", "jitter_spikes", "jittered_accuracy"],
        "plots": ["plot_against_scale", "plot_input_spectrum", "plot_jitter", "plot_timing"],
        "report": ["hurting_steps", "predictor_table", "step_where_lost", "timing_table"],
        "study": ["JITTERS", "TIME_STEPS", "open_timing", "run_timing_experiments", "timing_configs"],
    },
)
