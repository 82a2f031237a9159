"""What a config costs, computed on the meta device: nothing is allocated."""

from typing import Any

import torch
from torch import nn

from gigasr.discriminator import Discriminator
from gigasr.game import Game


def build_networks(game: type[Game], config: Any) -> dict[str, nn.Module]:  # noqa: ANN401
    """Both players of a config, without storage."""
    with torch.device("meta"):
        return {"generator": game.build_generator(config), "discriminator": Discriminator(config.discriminator)}


def count_parameters(networks: dict[str, nn.Module]) -> dict[str, int]:
    """Parameters of every part of each network, and of each as a whole."""
    counts: dict[str, int] = {}
    for name, network in networks.items():
        parts = {f"{name}.{part}": child for part, child in network.named_children()} | {name: network}
        counts |= {part: sum(p.numel() for p in module.parameters()) for part, module in parts.items()}
    return counts
