"""Networks trained in continuous time, run on a clock with weights of few bits."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["choice", "deploy", "deployment", "energy", "plots", "quantization", "report", "study"],
    {
        "choice": ["choose", "compare_chosen", "without_failed"],
        "deployment": [
            "by_dataset",
            "deployment_path",
            "holds_deployments",
            "is_deployed",
            "open_deployment",
            "open_deployments",
            "run_on_clock",
        ],
        "energy": [
            "CMOS_45NM",
            "HARDWARE",
            "NO_ENERGY",
            "PACES",
            "TERMS",
            "Hardware",
            "Price",
            "active_share",
            "costs",
            "dense_energy",
            "dense_operations",
            "deployment_costs",
            "energy_table",
            "memory_access",
            "neuron_updates_clocked",
        ],
        "plots.active_share": ["plot_active_share"],
        "plots.clock_and_word": ["plot_clock_and_word"],
        "plots.crossover": ["plot_crossover"],
        "plots.deployment": ["plot_deployment"],
        "plots.energy": ["plot_energy"],
        "plots.three_way": ["plot_three_way"],
        "quantization": ["quantization_scales", "quantize_weights"],
        "report": ["choice_table", "compared_table", "crossover_table", "energy_terms_table", "front_table"],
        "study": ["DEPLOY_STEPS", "WORD_LENGTHS", "chip_configs", "run_deployment"],
    },
)
