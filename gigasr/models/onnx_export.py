"""A network for one prompt and seed as an ONNX file: any batch, height and width, float32, body and tail in one graph.

The value between body and tail keeps its name, so that the two can be run apart, as gigasr runs other networks.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gigasr import __version__
from gigasr.files.atomic import replacing
from gigasr.inference.engine import BodyTail, Model
from gigasr.inference.folding import FoldedUpsampler
from gigasr.inference.tiling import Margin
from gigasr.models.aurasr import AuraNetwork
from gigasr.models.native import folded_network
from gigasr.models.onnx_model import FEATURES, IMAGE, RESULT, Header, import_onnx

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

LIMIT = 2_000_000_000  # bytes of weights that one file can hold
TAIL = "tail/"  # begins the names of the tail's values


class Body(nn.Module):
    """The body of a network, from images in [0, 1]."""

    def __init__(self, network: BodyTail) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """image: [B, 3, H, W] -> features [B, C, H, W]"""
        return self.network.body(image * 2 - 1)


class Tail(nn.Module):
    """The tail of a network, from and to images in [0, 1]; its results may lead a little out of that."""

    def __init__(self, network: BodyTail) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """features: [B, C, H, W], image: [B, 3, H, W] -> [B, 3, scale H, scale W]"""
        return self.network.tail(features, image * 2 - 1, Margin()) / 2 + 0.5


def export(model: Model, name: str, target: Path, prompt: str = "", seed: int = 0) -> None:
    """Save a model as ONNX, folded for one prompt and the z of one seed.

    name: of the model, for the file's metadata
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
    made = join(*trace(network))
    header = Header.of(network, name, prompt if model.takes_text else "", seed)
    onnx.helper.set_model_props(made, header.texts())
    made.producer_name, made.producer_version = "gigasr", __version__
    with replacing(target) as temporary:
        onnx.save_model(made, temporary)


@torch.no_grad()
def trace(network: BodyTail) -> "tuple[ModelProto, ModelProto]":
    """Body and tail as ONNX, each by itself: the tail takes any size, the body what its tiling says."""
    rule = network.tiling
    height, width = (max(rule.minimum // rule.multiple, 1) * rule.multiple * times for times in (3, 4))
    image = torch.rand(2, 3, height, width)
    features = Body(network)(image)
    batch, rows, columns = (torch.export.Dim(each) for each in ("batch", "height", "width"))
    whole = {0: batch, 2: rows, 3: columns}
    parts = (
        (Body(network), {IMAGE: image}, FEATURES, {0: batch, 2: rule.multiple * rows, 3: rule.multiple * columns}),
        (Tail(network), {FEATURES: features, IMAGE: image}, RESULT, whole),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name")  # features and image share theirs
        body, tail = (
            torch.onnx.export(
                part.eval(),
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=[output],
                dynamic_shapes=dict.fromkeys(inputs, sides),
                dynamo=True,
                verbose=False,
            )
            for part, inputs, output, sides in parts
        )
    assert body is not None
    assert tail is not None
    return body.model_proto, tail.model_proto


def join(body: "ModelProto", tail: "ModelProto") -> "ModelProto":
    """Body and tail as one graph from the image to the result."""
    onnx, _ = import_onnx()
    for graph in (body.graph, tail.graph):
        tidy(graph)
    between = list(body.graph.output)
    made = onnx.compose.merge_models(body, onnx.compose.add_prefix(tail, TAIL), [(FEATURES, TAIL + FEATURES)])
    for node in made.graph.node:
        node.input[:] = [IMAGE if name == TAIL + IMAGE else name for name in node.input]
        node.output[:] = [RESULT if name == TAIL + RESULT else name for name in node.output]
    made.graph.output[0].name = RESULT
    del made.graph.input[1]
    made.graph.value_info.extend(between)
    return made


def tidy(graph: "GraphProto") -> None:
    """Take out what tells of the tracing: the shapes of that size, lines of source code."""
    del graph.value_info[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
