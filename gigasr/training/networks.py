"""The networks of an adversarial training: generator, discriminators, frozen ones."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from gigasr.config.networks import TextConfig
from gigasr.config.training import TrainConfig
from gigasr.metrics import Lpips
from gigasr.networks.discriminator import Discriminator
from gigasr.networks.text import TextFeatureCache, TokenFeatures, load_tower
from gigasr.networks.upsampler import Level
from gigasr.networks.vision import ImageTower, VisionDiscriminator
from gigasr.training.distributed import num_processes, shard_fsdp
from gigasr.training.trained_network import TrainedNetwork, channels_last

N = TypeVar("N")


class TextTower(Protocol):
    """A frozen text tower, or one that keeps its features in memory."""

    def encode(self, texts: list[str]) -> TokenFeatures:
        """Encode B prompts."""
        ...


@dataclass(frozen=True)
class TaskNetworks:
    """All networks of one adversarial training; None for a network without a use."""

    generator: TrainedNetwork[nn.Module]
    generator_ema: nn.Module
    discriminator: TrainedNetwork[Discriminator]
    vision: TrainedNetwork[VisionDiscriminator] | None = None
    text_tower: TextTower | None = None  # reads the captions
    lpips: Lpips | None = None
    clip: ImageTower | None = None  # for the contrastive loss

    @property
    def trained(self) -> dict[str, TrainedNetwork[Any]]:
        """Return the networks in training, by the names in state.pt and the log."""
        networks: dict[str, TrainedNetwork[Any]] = {"g": self.generator, "d": self.discriminator}
        if self.vision is not None:
            networks["v"] = self.vision
        return networks


def required(network: N | None, name: str) -> N:
    """Return the network of a loss term or a batch. Raises ValueError for None."""
    if network is None:
        raise ValueError(f"networks.{name}: expected a network, got None; build the task from a config that needs it")
    return network


def prepare_pair(
    generator: nn.Module, discriminator: Discriminator, train: TrainConfig, device: torch.device, in_part: bool = False
) -> TaskNetworks:
    """Prepare generator and discriminator for training.

    Both move to the device and gain optimisers and replicas or shards; the generator gains the average.

    in_part: some phases use only a part of the generator
    """
    generator, discriminator = generator.to(device), channels_last(discriminator.to(device))
    is_sharded = train.fsdp and num_processes() > 1
    for level in _levels(generator):
        level.gradient_checkpointing = train.gradient_checkpointing
    generator_ema = copy.deepcopy(generator).requires_grad_(False).eval()
    if is_sharded:
        for network in (generator, generator_ema):
            shard_fsdp(network, _levels(network), device)
    return TaskNetworks(
        TrainedNetwork("g", generator, train, device, is_sharded, in_part),
        generator_ema,
        TrainedNetwork("d", discriminator, train, device),  # R1 needs second derivatives: no shards
    )


def _levels(generator: nn.Module) -> list[Level]:
    """List the levels of a generator."""
    return [module for module in generator.modules() if isinstance(module, Level)]


def load_text_tower(text: TextConfig, train: TrainConfig, device: torch.device) -> TextTower:
    """Load the frozen text tower, with a cache of features if the config has one."""
    tower = load_tower(text.tower, text.pretrained).to(device)
    if train.cache_text_features:
        return TextFeatureCache(tower)
    return tower


def with_loss_networks(
    networks: TaskNetworks, train: TrainConfig, device: torch.device, lpips_features: Path | None
) -> TaskNetworks:
    """Add the networks of weighted losses: vision-aided discriminator, LPIPS, CLIP.

    lpips_features: a file of SqueezeNet features, for machines without network access
    """
    terms: set[str] = set()
    for phase in train.phases:
        terms.update(name for name, weight in phase.loss if weight)
    if "vision" in terms:
        vision = VisionDiscriminator(train.vision).to(device)
        networks = replace(networks, vision=TrainedNetwork("v", vision, train, device))
    if "lpips" in terms:
        lpips = Lpips("squeeze", features=lpips_features).to(device)
        networks = replace(networks, lpips=channels_last(lpips))
    if "clip" in terms:
        networks = replace(networks, clip=_contrastive_tower(networks, train).to(device))
    return networks


def _contrastive_tower(networks: TaskNetworks, train: TrainConfig) -> ImageTower:
    """Return CLIP for the contrastive loss.

    The tower of the vision-aided discriminator is shared if both configs name the same model.
    """
    clip, vision = train.clip, train.vision
    is_same_model = (clip.tower, clip.pretrained) == (vision.tower, vision.pretrained)
    if networks.vision is not None and is_same_model:
        return networks.vision.module.tower
    return ImageTower(clip.tower, clip.pretrained)


def mixed_precision(train: TrainConfig, device: torch.device, enabled: bool = True) -> torch.autocast:
    """Compute in bf16 if the config says bf16.

    The heads of the discriminators leave autocast by themselves.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled and train.precision == "bf16")
