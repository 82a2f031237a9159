"""Write and read networks, folded for one prompt and seed, as files for spandrel.

>>> from gigasr.models.spandrel_plugin import register
>>> register()  # from now on spandrel.ModelLoader reads the files of `gigasr export MODEL lite.pth`
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import BaseModel
from spandrel import MAIN_REGISTRY, Architecture, ArchSupport, ImageModelDescriptor, SizeRequirements
from spandrel.util import KeyCondition
from torch import Tensor, nn

from gigasr.config.networks import UpsamplerConfig
from gigasr.files.atomic import atomic_write
from gigasr.inference.engine import Model
from gigasr.inference.folding import FoldedUpsampler, fold
from gigasr.models.native import folded_network
from gigasr.networks.text import TextFeatures
from gigasr.networks.upsampler import Upsampler

ID = "gigasr"
PLUGIN_HEADER_KEY = "gigasr_header"  # key of the header: JSON as bytes, because spandrel passes only tensors


class PluginHeader(BaseModel):
    """The header of a file: the network's config, its prompt and its seed."""

    config: UpsamplerConfig
    num_tokens: int  # of the prompt
    model: str
    prompt: str
    seed: int


class ImageNetwork(nn.Module):
    """A folded upsampler from and to images in [0, 1], without input noise."""

    def __init__(self, folded: FoldedUpsampler, header: Tensor) -> None:
        super().__init__()
        self.folded = folded
        self.register_buffer(PLUGIN_HEADER_KEY, header)

    def forward(self, image: Tensor) -> Tensor:
        """image: [B, 3, H, W] -> [B, 3, scale H, scale W]"""
        return self.folded(image * 2 - 1) / 2 + 0.5


class FoldedArchitecture(Architecture[ImageNetwork]):
    """spandrel's detector and loader for the files."""

    def __init__(self) -> None:
        super().__init__(id=ID, name=ID, detect=KeyCondition.has_all(PLUGIN_HEADER_KEY))

    def load(self, state_dict: Mapping[str, Tensor]) -> "ImageModelDescriptor[ImageNetwork]":
        """Build the network of a file; spandrel loads the weights into it."""
        header = PluginHeader.model_validate_json(bytes(state_dict[PLUGIN_HEADER_KEY].tolist()))
        folded = empty_network(header.config, header.num_tokens)
        return ImageModelDescriptor(
            ImageNetwork(folded, torch.empty_like(state_dict[PLUGIN_HEADER_KEY])),
            state_dict,
            architecture=self,
            purpose="SR",
            tags=[header.model, f"seed {header.seed}", *filter(None, [header.prompt])],
            supports_half=False,
            supports_bfloat16=False,
            scale=folded.scale,
            input_channels=3,
            output_channels=3,
            size_requirements=SizeRequirements(folded.tiling.minimum, folded.tiling.multiple),
        )


def register() -> None:
    """Let spandrel's ModelLoader read the files; further calls do nothing."""
    if ID not in MAIN_REGISTRY:
        MAIN_REGISTRY.add(ArchSupport.from_architecture(FoldedArchitecture()))


def save(model: Model, name: str, target: Path, prompt: str = "", seed: int = 0) -> None:
    """Save an upsampler for one prompt and the z of one seed.

    The file holds {"params_ema": tensors} in fp32. Raises ValueError for weights that are not gigasr's.

    name: name of the model, for the file's header and for errors
    """
    folded = folded_network(model, prompt, seed)
    if not isinstance(folded, FoldedUpsampler):
        raise ValueError(f"{name}: expected weights of gigasr, got others; spandrel reads them as they are")
    state = folded.state_dict()
    num_tokens = next((tensor.shape[1] for key, tensor in state.items() if key.endswith(".mask")), 1)
    header = PluginHeader(config=folded.network.config, num_tokens=num_tokens, model=name, prompt=prompt, seed=seed)
    text = torch.tensor(list(header.model_dump_json().encode()), dtype=torch.uint8)
    tensors = {key: tensor.contiguous() for key, tensor in ImageNetwork(folded, text).state_dict().items()}
    with atomic_write(target) as temporary:
        torch.save({"params_ema": tensors}, temporary)


def empty_network(config: UpsamplerConfig, num_tokens: int) -> FoldedUpsampler:
    """Build a folded network on the CPU, with uninitialised weights."""
    with torch.device("meta"):
        t_local, t_global = torch.empty(1, num_tokens, config.text.dim), torch.empty(1, config.text.dim)
        text = TextFeatures(t_local, t_global, torch.empty(1, num_tokens, dtype=torch.bool))
        folded = fold(Upsampler(config), torch.empty(1, config.w_dim), text)
    return folded.to_empty(device="cpu")
