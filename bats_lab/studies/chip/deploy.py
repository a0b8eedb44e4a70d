"""What ``bats_lab.deploy`` names: from weights of few bits to what a deployed network costs."""

from bats_lab.studies.chip.choice import choose, compare_chosen
from bats_lab.studies.chip.deployment import (
    deployment_path,
    holds_deployments,
    is_deployed,
    open_deployment,
    open_deployments,
    run_on_clock,
)
from bats_lab.studies.chip.energy import deployment_costs
from bats_lab.studies.chip.quantization import quantization_scales, quantize_weights
from bats_lab.studies.chip.study import chip_configs, run_deployment

__all__ = [
    "chip_configs",
    "choose",
    "compare_chosen",
    "deployment_costs",
    "deployment_path",
    "holds_deployments",
    "is_deployed",
    "open_deployment",
    "open_deployments",
    "quantization_scales",
    "quantize_weights",
    "run_deployment",
    "run_on_clock",
]
