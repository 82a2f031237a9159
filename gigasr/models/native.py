"""gigasr's own upsamplers, as SuperResolver takes them."""

import torch

from gigasr.inference.devices import Place, replicate
from gigasr.inference.engine import BodyTail, BodyTailEngine, Model
from gigasr.inference.folding import fold
from gigasr.inference.noise import seeded
from gigasr.networks.text import load_tower, warn_of_cut
from gigasr.networks.upsampler import Upsampler


class PromptedUpsampler:
    """An upsampler and its text tower; they make an engine by folding."""

    takes_text = True

    def __init__(self, network: Upsampler) -> None:
        self.network, self.scale, self.scales = network, network.scale, network.scales
        text = network.config.text
        self.tower = load_tower(text.tower, text.pretrained)

    def engine(self, prompt: str, seed: int, place: Place, scale: int | None = None) -> BodyTailEngine:
        """Fold the network for one prompt and the z of one seed, up to the level of a scale."""
        warn_of_cut(prompt)
        self.network, self.tower = self.network.to(place.home), self.tower.to(place.home)
        z = torch.randn(1, self.network.config.z_dim, generator=seeded(seed))
        w, text = self.network.condition(z.to(place.home), self.tower.encode([prompt]))
        folded = fold(self.network.ending_at(scale or self.scale), w, text, place.dtype)
        return BodyTailEngine(replicate(folded, place.devices), place)


def folded_network(model: Model, prompt: str, seed: int) -> BodyTail | None:
    """A model's network for one prompt and the z of one seed, on the CPU in fp32; None where it is in one part."""
    place = Place()
    engine = model.engine(prompt, seed, place)
    return engine.networks[place.home] if isinstance(engine, BodyTailEngine) else None
