"""ONNX files as models.

Body and tail of gigasr's own files run apart. Third-party files run whole, from image to larger image.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from gigasr import __version__
from gigasr.inference.devices import ExecutionPlan
from gigasr.inference.engine import BlendedTileEngine, BodyTail, BodyTailEngine
from gigasr.inference.folding import NO_MARGIN, crop_margin
from gigasr.inference.tiling import Margin, TilingRules
from gigasr.models.checkpoint import CheckpointError
from gigasr.models.spandrel_backend import MIN_INPUT_SIDE, OVERLAP, pixel_bytes

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

IMAGE, FEATURES, RESIDUAL, ROOT, RESULT = "image", "features", "residual", "root", "upscaled"  # values of our files
PROBE_SIZE = 64, 96  # px; height and width of the image that finds the scale of a third-party file
FEWER_MAPS = 2  # onnxruntime holds half as many maps at a time as torch: tiles are twice as large, with less halo
MULTIPLE = 16  # px; input sides of third-party files are multiples of it: a guess that suits most files
DTYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16}


class OnnxHeader(BaseModel):
    """The metadata of a file exported by gigasr."""

    gigasr: Literal["1"] = "1"  # format
    version: str = __version__
    model: str
    prompt: str
    seed: int  # of z
    scale: int
    input_noise: float  # standard deviation, [-1, 1] units, of the noise to add to the body's image
    restores: bool = False  # whether the graph has a residual and a root
    halo: int  # low-res px; halo of the tail
    tail_bytes: int  # memory of the tail per low-res px
    overlap: int  # px; overlap to result_bytes are the body's tiling rules
    align: int
    multiple: int
    minimum: int
    side: int
    pixel_bytes: int
    result_bytes: int

    @classmethod
    def of(cls, network: BodyTail, model: str, prompt: str, seed: int) -> "OnnxHeader":
        """Make the header for a network.

        model: name of the model
        """
        names = ("scale", "input_noise", "halo", "tail_bytes")
        known = {name: getattr(network, name) for name in names} | vars(network.tiling)
        known["restores"] = network.root_residual is not None
        return cls(model=model, prompt=prompt, seed=seed, **known)

    def texts(self) -> dict[str, str]:
        """Return the metadata as strings by name."""
        return {name: str(value) for name, value in self}

    @property
    def tiling(self) -> TilingRules:
        """The tiling rules of the body."""
        return TilingRules(**{each.name: getattr(self, each.name) for each in fields(TilingRules)})


class Session:
    """A graph with one output in onnxruntime, on one of torch's devices."""

    def __init__(self, graph: "Path | ModelProto", device: torch.device) -> None:
        runtime = import_onnx()[1]
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # errors come as exceptions
        source = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
        self.device, providers = device, [provider(device)]
        with as_runtime_errors():
            self.session: InferenceSession = runtime.InferenceSession(source, options, providers=providers)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run the graph; the inputs have the order and the dtypes of the graph's inputs."""
        names = [each.name for each in self.session.get_inputs()]
        feed = {name: x.contiguous().cpu().numpy() for name, x in zip(names, inputs, strict=True)}
        with as_runtime_errors():
            result = self.session.run(None, feed)[0]
        return torch.from_numpy(result).to(self.device)


@contextmanager
def as_runtime_errors() -> Iterator[None]:
    """Turn onnxruntime's errors into RuntimeErrors; they share no base class."""
    try:
        yield
    except Exception as error:
        raise RuntimeError(f"onnxruntime: {error}") from None


def provider(device: torch.device) -> Any:  # a name, or a name and its options
    """Choose onnxruntime's execution provider for a device.

    Raises ValueError if onnxruntime has none here.
    """
    if device.type == "cpu":
        return "CPUExecutionProvider"
    known = import_onnx()[1].get_available_providers()
    if device.type == "cuda" and "CUDAExecutionProvider" in known:
        return "CUDAExecutionProvider", {"device_id": device.index or 0}
    raise ValueError(f"device: expected one that onnxruntime has here ({', '.join(known)}), got {device}; name the cpu")


class OnnxNetwork:
    """Body and tail of a file exported by gigasr, as the two parts of an engine."""

    def __init__(self, graph: "ModelProto", header: OnnxHeader, device: torch.device) -> None:
        parts = import_onnx()[0].utils.Extractor(graph)
        self.run_body = Session(parts.extract_model([IMAGE], [FEATURES]), device)
        self.root_residual = Session(parts.extract_model([FEATURES], [RESIDUAL]), device) if header.restores else None
        root = ROOT if header.restores else IMAGE
        self.run_tail = Session(parts.extract_model([FEATURES, root], [RESULT]), device)
        self.scale, self.input_noise, self.tiling = header.scale, header.input_noise, header.tiling
        self.halo, self.tail_bytes = header.halo, header.tail_bytes // FEWER_MAPS
        self.receptive_radius = 0  # the graph cannot crop a margin level by level, hence blended tiles cost less

    def body(self, lr: Tensor, margin: Margin = NO_MARGIN) -> Tensor:
        """lr: [B, 3, H, W] float32 in [-1, 1], sides by the tiling rules -> features [B, C, H', W']"""
        return crop_margin(self.run_body(lr / 2 + 0.5), margin)

    def tail(self, features: Tensor, root: Tensor, margin: Margin) -> Tensor:
        """features: [B, C, H, W], root: [B, 3, H, W] -> [B, 3, H' scale, W' scale], without the margin"""
        y = self.run_tail(features, root / 2 + 0.5)
        return crop_margin(y, Margin(*(side * self.scale for side in margin))) * 2 - 1


class OnnxModel:
    """A file exported by gigasr for one prompt and one z.

    The seed of a run sets only the noise field.
    """

    takes_text = False

    def __init__(self, path: Path, header: OnnxHeader) -> None:
        self.path, self.header, self.scale = path, header, header.scale
        self.scales = [self.scale]

    def engine(self, prompt: str, seed: int, execution: ExecutionPlan, scale: int | None = None) -> BodyTailEngine:
        """Make an engine in float32, for all precisions of the plan."""
        graph = read(self.path)
        return BodyTailEngine(
            {device: OnnxNetwork(graph, self.header, device) for device in execution.devices}, execution
        )


class ExternalOnnxModel:
    """A third-party file that upscales images by an integer scale.

    The input is [1, 3, H, W] in [0, 1], of any size, or square of one fixed size. Raises CheckpointError for others.
    """

    takes_text = False

    def __init__(self, path: Path) -> None:
        self.path, session = path, Session(path, torch.device("cpu"))
        inputs = session.session.get_inputs()
        shape, self.dtype = inputs[0].shape, DTYPES.get(inputs[0].type, torch.float32)
        sides = {side if isinstance(side, int) else 0 for side in shape[2:]}
        self.side = max(sides, default=0)  # px, 0 = any
        problem = f"{path}: expected a network from images [1, 3, H, W] to larger ones, got"
        if len(inputs) != 1 or inputs[0].type not in DTYPES or len(shape) != 4 or len(sides) != 1:
            described = ", ".join(f"{each.type} {each.shape}" for each in inputs)
            raise CheckpointError(f"{problem} inputs {described}; choose another file")
        height, width = (self.side, self.side) if self.side else PROBE_SIZE
        probe = torch.zeros(1, 3, height, width, dtype=self.dtype)
        try:
            found = session(probe).shape
        except RuntimeError as error:
            raise CheckpointError(f"{problem}: {' '.join(str(error).split())[:200]}; choose another file") from None
        self.scale = max(found[-1] // width, 1)
        self.scales = [self.scale]
        if found != (1, 3, height * self.scale, width * self.scale):
            raise CheckpointError(f"{problem} {list(found)} for {height}x{width} px; choose another file")
        self.takes_batches = takes_batches(session, probe)

    def engine(self, prompt: str, seed: int, execution: ExecutionPlan, scale: int | None = None) -> BlendedTileEngine:
        """Make an engine in the file's own precision, for all precisions of the plan.

        A file of fixed size runs on tiles of this size.
        """
        multiple = self.side or MULTIPLE
        overlap = min(OVERLAP, self.side // 4) if self.side else OVERLAP
        sizes = pixel_bytes(self.scale, torch.float32), 12 * self.scale**2
        tiling = TilingRules(overlap, 1, multiple, self.side or MIN_INPUT_SIDE, self.side, *sizes)
        calls = {device: self.unit_range(Session(self.path, device)) for device in execution.devices}
        tile, batch = 0 if self.side else execution.tile, execution.batch if self.takes_batches else 1
        return BlendedTileEngine(calls, self.scale, tiling, replace(execution, tile=tile, batch=batch))

    def unit_range(self, session: Session) -> Callable[[Tensor], Tensor]:
        """Adapt a network on images in [0, 1] to images in [-1, 1]."""
        return lambda x: session((x / 2 + 0.5).to(self.dtype)).float() * 2 - 1


def takes_batches(session: Session, image: Tensor) -> bool:
    """Tell by a run whether a network takes two images at a time.

    The declared shape does not suffice: some files declare a free batch and fail.
    """
    try:
        return len(session(image.repeat(2, 1, 1, 1))) == 2
    except RuntimeError:
        return False


def load_onnx(path: Path) -> OnnxModel | ExternalOnnxModel:
    """Load the model of an ONNX file: gigasr's own or a third party's."""
    notes = {each.key: each.value for each in read(path).metadata_props}
    if "gigasr" not in notes:
        return ExternalOnnxModel(path)
    try:
        return OnnxModel(path, OnnxHeader.model_validate(notes))
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{path}: {first['loc'][0]}: {first['msg']}; update gigasr, or export it again") from None


def read(path: Path) -> "ModelProto":
    """Read the graph of a file, without tensors stored in other files."""
    onnx = import_onnx()[0]
    try:
        model: ModelProto = onnx.load(path, load_external_data=False)
    except Exception as error:  # of protobuf, whose classes change
        raise CheckpointError(f"{path}: expected an ONNX file, got: {error}; download or export it again") from None
    if not model.graph.node:
        raise CheckpointError(f"{path}: expected an ONNX file, got no graph; download or export it again")
    return model


def describe_onnx(path: Path) -> dict[str, str]:
    """Describe a file in words: kind, scale, parameters, size and metadata."""
    graph, model = read(path).graph, load_onnx(path)
    parameters = sum(math.prod(tensor.dims) for tensor in graph.initializer)
    shown = ("model", "prompt", "seed", "version")
    header = model.header.texts() if isinstance(model, OnnxModel) else {}
    return {
        "file": str(path),
        "kind": "ONNX, by gigasr" if header else "ONNX",
        "scale": str(model.scale),
        "parameters": f"{parameters / 1e6:.2f} M",
        "size": f"{path.stat().st_size / 1e6:.1f} MB",
        **{name: text for name, text in header.items() if name in shown},
    }


def import_onnx() -> tuple[ModuleType, ModuleType]:
    """Import onnx and onnxruntime; the ImportError tells the command to install them."""
    try:
        import onnx
        import onnx.compose
        import onnx.utils
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"onnx: expected to be installed, got '{error}'; pip install 'gigasr[export]'") from None
    return onnx, onnxruntime
