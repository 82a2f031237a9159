"""Groups of parameters for the optimiser."""

from typing import Any

from torch import nn

from gigasr.config.training import TrainConfig


def parameter_groups(module: nn.Module, train: TrainConfig) -> list[dict[str, Any]]:
    """Attention over images has a weight decay of its own (paper, table A2); that of T counts as text."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in module.named_parameters():
        groups["attention" in name.split(".")].append(parameter)
    decays = {True: train.attention_weight_decay, False: train.weight_decay}
    return [{"params": groups[key], "weight_decay": decays[key]} for key in (False, True) if groups[key]]
