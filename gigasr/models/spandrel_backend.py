"""Third-party networks, loaded by spandrel, as models of `SuperResolver`."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gigasr.errors import join_lines
from gigasr.inference.devices import ExecutionPlan
from gigasr.inference.engine import BlendedTileEngine
from gigasr.inference.tiling import TilingRules
from gigasr.models.checkpoint import CheckpointError

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

OVERLAP = 32  # px; overlap of the tiles of a network with unknown receptive field
MIN_INPUT_SIDE = 64  # px; least input side of a third-party network: 4 px at a coarsest level of 1/16
WHOLE_IMAGE = 1 << 20  # px; side of a tile for networks that need the whole image
LOW_RES_VALUES, HIGH_RES_VALUES = 1024, 192  # values in memory per px of the input and of the result; a guess


class SpandrelModel:
    """A network built by spandrel, with a scale of 1 or more."""

    takes_text = False

    def __init__(self, descriptor: "ImageModelDescriptor[Any]") -> None:
        self.descriptor, self.scale = descriptor, descriptor.scale
        self.scales = [self.scale]

    def engine(self, prompt: str, seed: int, execution: ExecutionPlan, scale: int | None = None) -> BlendedTileEngine:
        """Make an engine that runs one tile at a time; ignore prompt and seed.

        spandrel guarantees only batch size 1 (DRUNet needs it). The engine runs in bf16 only if the network supports
        bf16, else in fp32.
        """
        descriptor = self.descriptor
        dtype = execution.dtype if descriptor.supports_bfloat16 else torch.float32
        calls = {
            device: unit_range(copy.deepcopy(descriptor).to(device, dtype), descriptor, dtype)
            for device in execution.devices
        }
        is_divisible = descriptor.tiling.name == "SUPPORTED"
        overlap = (
            math.ceil(OVERLAP / descriptor.size_requirements.multiple_of) * descriptor.size_requirements.multiple_of
        )
        tiling = TilingRules(
            overlap,
            descriptor.size_requirements.multiple_of,
            minimum=max(MIN_INPUT_SIDE, descriptor.size_requirements.minimum),
            side=0 if is_divisible else WHOLE_IMAGE,
            pixel_bytes=pixel_bytes(self.scale, dtype),
            result_bytes=12 * self.scale**2,
        )
        return BlendedTileEngine(calls, self.scale, tiling, replace(execution, batch=1))


def pixel_bytes(scale: int, dtype: torch.dtype) -> int:
    """Guess the memory of an unknown network, bytes per low-res px."""
    return dtype.itemsize * (LOW_RES_VALUES + HIGH_RES_VALUES * scale**2)


def unit_range(
    call: Callable[[Tensor], Tensor], descriptor: "ImageModelDescriptor[Any]", dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """Adapt a network on images in [0, 1] to images in [-1, 1].

    A network of gray images runs on the three channels in turn.
    """

    def run(x: Tensor) -> Tensor:
        unit = x.add(1).div(2).to(dtype)
        if descriptor.input_channels == 1:
            return torch.cat([call(channel) for channel in unit.split(1, dim=1)], dim=1).float() * 2 - 1
        return call(unit).float() * 2 - 1

    return run


def load_spandrel(tensors: Mapping[str, Tensor], source: str) -> SpandrelModel:
    """Build a network from weights that spandrel recognises.

    Raises CheckpointError for unknown or incomplete weights, and for networks not from image to image.

    source: name of the file in errors
    """
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

    try:
        found = ModelLoader().load_from_state_dict(dict(tensors))
    except UnsupportedModelError:
        known = "gigasr's, AuraSR's, or an upscaler's that spandrel knows"
        raise CheckpointError(f"{source}: expected weights of a known kind ({known}), got others") from None
    except Exception as error:  # spandrel infers sizes from shapes and may stumble in any way
        reason = join_lines(str(error))[:200]
        raise CheckpointError(f"{source}: expected complete weights, got: {reason}; download it again") from None
    channels = found.input_channels, found.output_channels
    if not isinstance(found, ImageModelDescriptor) or channels not in ((3, 3), (1, 1)):
        name = found.architecture.name
        raise CheckpointError(f"{source}: expected a network from image to image, got {name} {channels}; it needs more")
    return SpandrelModel(found)
