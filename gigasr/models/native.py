"""gigasr's own upsamplers as models of `SuperResolver`."""

import torch

from gigasr.inference.devices import ExecutionPlan, copy_to_devices
from gigasr.inference.engine import BodyTail, BodyTailEngine, Model
from gigasr.inference.folding import fold
from gigasr.inference.noise import seeded
from gigasr.networks.text import load_tower, warn_of_cut
from gigasr.networks.upsampler import Upsampler


class PromptedUpsampler:
    """An upsampler and its text tower, folded to an engine for each prompt."""

    takes_text = True

    def __init__(self, network: Upsampler) -> None:
        self.network, self.scale, self.scales = network, network.scale, network.scales
        text = network.config.text
        self.tower = load_tower(text.tower, text.pretrained)

    def engine(self, prompt: str, seed: int, execution: ExecutionPlan, scale: int | None = None) -> BodyTailEngine:
        """Fold the network for one prompt and the z of one seed, up to a scale."""
        warn_of_cut(prompt)
        self.network, self.tower = self.network.to(execution.main_device), self.tower.to(execution.main_device)
        z = torch.randn(1, self.network.config.z_dim, generator=seeded(seed))
        w, text = self.network.condition(z.to(execution.main_device), self.tower.encode([prompt]))
        folded = fold(self.network.ending_at(scale or self.scale), w, text, execution.dtype)
        return BodyTailEngine(copy_to_devices(folded, execution.devices), execution)


def folded_network(model: Model, prompt: str, seed: int) -> BodyTail | None:
    """Fold a model's network for one prompt and the z of one seed.

    returns: the network on the CPU in fp32; None for a network without body and tail
    """
    execution = ExecutionPlan()
    engine = model.engine(prompt, seed, execution)
    return engine.networks[execution.main_device] if isinstance(engine, BodyTailEngine) else None
