"""Groups of parameters for the optimiser."""

from typing import Any

from torch import nn

from gigasr.config.training import TrainConfig


def parameter_groups(module: nn.Module, train: TrainConfig) -> list[dict[str, Any]]:
    """Group parameters by weight decay: attention over images has a separate value.

    Attention in the text transformer T belongs to the other group (paper, table A2).
    """
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in module.named_parameters():
        is_attention = "attention" in name.split(".")
        groups[is_attention].append(parameter)
    decays = {False: train.weight_decay, True: train.attention_weight_decay}
    used = [key for key in decays if groups[key]]
    return [{"params": groups[key], "weight_decay": decays[key]} for key in used]
