"""Networks trained in continuous time, run on a clock with weights of few bits."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["deploy", "energy", "report", "plots"],
    {
        "deploy": [
            "DEPLOY_STEPS",
            "NOTEBOOK",
            "WORD_LENGTHS",
            "chip_configs",
            "choose",
            "deployment_costs",
            "deployment_path",
            "holds_deployments",
            "is_deployed",
            "open_deployment",
            "quantization_scales",
            "quantize_weights",
            "run_deployment",
            "run_on_clock",
        ],
        "energy": [
            "CMOS_45NM",
            "HARDWARE",
            "NO_ENERGY",
            "Hardware",
            "active_share",
            "costs",
            "dense_operations",
            "energy_table",
            "neuron_updates_clocked",
        ],
        "report": ["by_dataset", "choice_table", "compare_chosen", "describe_deployment", "front_table"],
        "plots.active_share": ["plot_active_share"],
        "plots.clock_and_word": ["plot_clock_and_word"],
        "plots.deployment": ["plot_deployment"],
        "plots.energy": ["plot_energy"],
        "plots.three_way": ["plot_three_way"],
    },
)
