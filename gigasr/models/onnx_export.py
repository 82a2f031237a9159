"""Export a network for one prompt and seed as an ONNX file.

The graph holds body and tail in float32, for any batch, height and width. The value between body and tail has a fixed
name, hence gigasr can run body and tail apart.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gigasr import __version__
from gigasr.files.atomic import atomic_write
from gigasr.inference.engine import BodyTail, Model
from gigasr.inference.folding import FoldedUpsampler
from gigasr.inference.tiling import Margin
from gigasr.models.aurasr import AuraNetwork
from gigasr.models.native import folded_network
from gigasr.models.onnx_model import FEATURES, IMAGE, RESIDUAL, RESULT, ROOT, OnnxHeader, import_onnx
from gigasr.networks.upsampler import remove_low_frequencies

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

LIMIT = 2_000_000_000  # most bytes of weights in one file


class Body(nn.Module):
    """The body of a network, from images in [0, 1]."""

    def __init__(self, network: BodyTail) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """image: [B, 3, H, W] -> features [B, C, H, W]"""
        return self.network.body(image * 2 - 1)


class Residual(nn.Module):
    """The root layer of a network."""

    def __init__(self, network: BodyTail) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        """features: [B, C, H, W] -> [B, 3, H, W] in [-1, 1] units, all frequencies"""
        assert self.network.root_residual is not None
        return self.network.root_residual(features)


class Root(nn.Module):
    """The root of a network's pyramid, from and to images in [0, 1]."""

    def forward(self, residual: Tensor, image: Tensor) -> Tensor:
        """residual, image: [B, 3, H, W] -> [B, 3, H, W]"""
        return image + remove_low_frequencies(residual) / 2


class Tail(nn.Module):
    """The tail of a network, from and to images in [0, 1].

    The results are not clipped: a few values leave the range.
    """

    def __init__(self, network: BodyTail) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor, root: Tensor) -> Tensor:
        """features: [B, C, H, W], root: [B, 3, H, W] -> [B, 3, scale H, scale W]"""
        return self.network.tail(features, root * 2 - 1, Margin()) / 2 + 0.5


def export_onnx(model: Model, name: str, target: Path, prompt: str = "", seed: int = 0) -> None:
    """Save a model as ONNX, folded for one prompt and the z of one seed.

    Raises ValueError for weights of other kinds and above `LIMIT`.

    name: name of the model, for the file's metadata and for errors
    """
    onnx, _ = import_onnx()
    network = folded_network(model, prompt, seed)
    if not isinstance(network, FoldedUpsampler | AuraNetwork):
        raise ValueError(f"{name}: expected weights of gigasr or AuraSR, got others; their own tools export those")
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > LIMIT:
        raise ValueError(f"{name}: expected at most {LIMIT / 1e9:g} GB, got {size / 1e9:.1f}; choose a smaller model")
    if isinstance(network, AuraNetwork):
        network.fix_steps()
    made = join(trace(network))
    header = OnnxHeader.of(network, name, prompt if model.takes_text else "", seed)
    onnx.helper.set_model_props(made, header.texts())
    made.producer_name, made.producer_version = "gigasr", __version__
    with atomic_write(target) as temporary:
        onnx.save_model(made, temporary)


@torch.no_grad()
def trace(network: BodyTail) -> "list[ModelProto]":
    """Export each part of a network as ONNX by itself: body, root and tail.

    The sides of the body follow the tiling rules. The other parts take all sides.
    """
    rule = network.tiling
    height, width = (max(rule.minimum // rule.multiple, 1) * rule.multiple * times for times in (3, 4))
    image = torch.rand(2, 3, height, width)
    features = Body(network)(image)
    batch, rows, columns = (torch.export.Dim(each) for each in ("batch", "height", "width"))
    whole = {0: batch, 2: rows, 3: columns}
    parts: list[tuple[nn.Module, dict[str, Tensor], str, dict[int, Any]]] = [
        (Body(network), {IMAGE: image}, FEATURES, {0: batch, 2: rule.multiple * rows, 3: rule.multiple * columns})
    ]
    if network.root_residual is not None:
        parts.append((Residual(network), {FEATURES: features}, RESIDUAL, whole))
        parts.append((Root(), {RESIDUAL: image, IMAGE: image}, ROOT, whole))
    root = IMAGE if network.root_residual is None else ROOT
    parts.append((Tail(network), {FEATURES: features, root: image}, RESULT, whole))
    made = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name")  # features and image share axis names
        for part, inputs, output, sides in parts:
            program = torch.onnx.export(
                part.eval(),
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=[output],
                dynamic_shapes=(sides,) * len(inputs),
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            made.append(program.model_proto)
    return made


def join(parts: "Sequence[ModelProto]") -> "ModelProto":
    """Join the parts to one graph from the image to the result.

    The values between the parts keep their names.
    """
    onnx, _ = import_onnx()
    whole = parts[0]
    tidy(whole.graph)
    for part in parts[1:]:
        tidy(part.graph)
        between = list(whole.graph.output)
        output = part.graph.output[0].name
        prefix = f"{output}/"
        shared = {prefix + value.name: value.name for value in part.graph.input} | {prefix + output: output}
        prefixed = onnx.compose.add_prefix(part, prefix)
        for node in prefixed.graph.node:
            node.input[:] = [shared.get(name, name) for name in node.input]
            node.output[:] = [shared.get(name, name) for name in node.output]
        whole.graph.node.extend(prefixed.graph.node)
        whole.graph.initializer.extend(prefixed.graph.initializer)
        whole.graph.value_info.extend([*between, *prefixed.graph.value_info])
        del whole.graph.output[:]
        whole.graph.output.extend(part.graph.output)
    return whole


def tidy(graph: "GraphProto") -> None:
    """Remove the traces of the export: shapes of the traced size, source lines."""
    del graph.value_info[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
