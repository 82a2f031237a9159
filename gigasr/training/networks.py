"""The networks of one adversarial training: those that learn, the average, the frozen ones."""

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
    """All networks of one adversarial training; None for those that no phase needs."""

    generator: TrainedNetwork[nn.Module]
    generator_ema: nn.Module
    discriminator: TrainedNetwork[Discriminator]
    vision: TrainedNetwork[VisionDiscriminator] | None = None
    text_tower: TextTower | None = None  # reads the captions
    lpips: Lpips | None = None
    clip: ImageTower | None = None  # for the contrastive loss

    @property
    def trained(self) -> dict[str, TrainedNetwork[Any]]:
        """The networks that learn, by the names that state.pt and the log have for them."""
        networks: dict[str, TrainedNetwork[Any]] = {"g": self.generator, "d": self.discriminator}
        if self.vision is not None:
            networks["v"] = self.vision
        return networks


def required(network: N | None, name: str) -> N:
    """Return a network that a loss term or a batch needs. Raises ValueError for None."""
    if network is None:
        raise ValueError(f"networks.{name}: expected a network, got None; build the task from a config that needs it")
    return network


def prepare_pair(
    generator: nn.Module, discriminator: Discriminator, train: TrainConfig, device: torch.device, in_part: bool = False
) -> TaskNetworks:
    """Move a generator and a discriminator to the device, with optimisers, replicas or shards, and the average.

    in_part: some phases use only a part of the generator
    """
    generator, discriminator = generator.to(device), channels_last(discriminator.to(device))
    is_sharded = train.fsdp and num_processes() > 1
    levels = [module for module in generator.modules() if isinstance(module, Level)]
    for level in levels:
        level.gradient_checkpointing = train.gradient_checkpointing
    generator_ema = copy.deepcopy(generator).requires_grad_(False).eval()
    if is_sharded:
        for network in (generator, generator_ema):
            shard_fsdp(network, [module for module in network.modules() if isinstance(module, Level)], device)
    return TaskNetworks(
        TrainedNetwork("g", generator, train, device, is_sharded, in_part),
        generator_ema,
        TrainedNetwork("d", discriminator, train, device),  # R1 needs second derivatives: no shards
    )


def load_text_tower(text: TextConfig, train: TrainConfig, device: torch.device) -> TextTower:
    """Load the frozen text tower; it keeps the features of all captions in memory where the config says so."""
    tower = load_tower(text.tower, text.pretrained).to(device)
    return TextFeatureCache(tower) if train.cache_text_features else tower


def with_loss_networks(
    networks: TaskNetworks, train: TrainConfig, device: torch.device, lpips_features: Path | None
) -> TaskNetworks:
    """Add the vision-aided discriminator, LPIPS and CLIP where a phase gives their losses a weight.

    lpips_features: a file of SqueezeNet features where they cannot be downloaded
    """
    terms = {name for phase in train.phases for name, weight in phase.loss if weight}
    if "vision" in terms:
        vision = VisionDiscriminator(train.vision).to(device)
        networks = replace(networks, vision=TrainedNetwork("v", vision, train, device))
    if "lpips" in terms:
        networks = replace(networks, lpips=channels_last(Lpips("squeeze", features=lpips_features).to(device)))
    if "clip" in terms:
        networks = replace(networks, clip=_contrastive_tower(networks, train).to(device))
    return networks


def _contrastive_tower(networks: TaskNetworks, train: TrainConfig) -> ImageTower:
    """Return CLIP for the contrastive loss: the vision-aided discriminator's own tower if both name one model."""
    clip, vision = train.clip, train.vision
    is_same_model = (clip.tower, clip.pretrained) == (vision.tower, vision.pretrained)
    if networks.vision is not None and is_same_model:
        return networks.vision.module.tower
    return ImageTower(clip.tower, clip.pretrained)


def mixed_precision(train: TrainConfig, device: torch.device, enabled: bool = True) -> torch.autocast:
    """Compute in bf16 if the config asks for it; the heads of the discriminators opt out by themselves."""
    return torch.autocast(device.type, torch.bfloat16, enabled and train.precision == "bf16")
