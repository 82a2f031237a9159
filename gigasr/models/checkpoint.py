"""Files of weights: safetensors with the config in the header, written atomically; training state beside them."""

import errno
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gigasr.errors import DAMAGED_WEIGHTS, join_lines
from gigasr.files.atomic import atomic_write

M = TypeVar("M", bound=nn.Module)
FORMAT = "1"  # of the header
PICKLED = (".ckpt", ".pt", ".pth", ".bin")
ONNX = ".onnx"
WRAPPERS = ("G_ema", "G", "model_state_dict", "state_dict", "params_ema", "params-ema", "params", "model", "net")
HEADER_KEY = "gigasr"  # the header's key in what torch.save writes
CONFIG, MODEL, README = "config.json", "model.safetensors", "README.md"  # of a folder for the Hub


class CheckpointError(ValueError):
    """A file that cannot be used as a checkpoint."""


@contextmanager
def atomic_write_weights(path: Path) -> Iterator[Path]:
    """`atomic_write`, with an OSError that names the file for what torch and safetensors raise on a full disk."""
    with atomic_write(path) as temporary:
        try:
            yield temporary
        except (RuntimeError, SafetensorError) as error:
            reason = join_lines(str(error))[:100]
            raise OSError(errno.EIO, f"can't be written, is the disk full? ({reason})", str(path)) from error


def save_weights(
    path: Path, state: dict[str, Tensor], kind: str, config: dict[str, Any], dtype: torch.dtype, **notes: str
) -> None:
    """Save a model so that the file alone suffices to build it.

    state:  flat state dict; floating tensors are stored in dtype
    kind:   which network it is, e.g. "upsampler"
    config: JSON-able, as the network's config model dumps it
    notes:  more strings for the header, e.g. licence
    """
    header = {"format": FORMAT, "kind": kind, "config": json.dumps(config), **notes}
    tensors = {
        k: v.detach().to("cpu", dtype if v.is_floating_point() else v.dtype).contiguous() for k, v in state.items()
    }
    with atomic_write_weights(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def load_weights(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]:
    """Read what save_weights wrote.

    returns: state dict (as stored), config, the whole header
    """
    tensors, header = open_weights(path)
    if header.get("kind") != kind or "config" not in header:
        found = header.get("kind", "a file without gigasr's header")
        raise CheckpointError(f"{path}: expected the weights of a gigasr {kind}, got {found}; choose another file")
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected format {FORMAT}, got {header.get('format')}; update gigasr")
    return dict(tensors), json.loads(header["config"]), header


class LazyTensors(Mapping[str, Tensor]):
    """The tensors of a safetensors file, each read when it is asked for and let go with its last user."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_safetensors(path) as file:
            self.names = list(file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        with open_safetensors(self.path) as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def open_safetensors(path: Path) -> Any:  # safetensors' handle has no public type
    """A handle on a safetensors file, for a with statement."""
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise CheckpointError(f"{path}: expected a safetensors file, got: {error}; download or save it again") from None


def is_onnx(path: Path) -> bool:
    """Tell by its name whether a file holds a whole network and not just weights."""
    return path.suffix.lower() == ONNX


def open_weights(path: Path) -> tuple[Mapping[str, Tensor], dict[str, str]]:
    """The tensors of a file of weights, read lazily, and its header, empty where the file isn't gigasr's.

    Safetensors, or what torch.save wrote, of which only plain data is unpickled; dictionaries around the tensors
    (params_ema, G_ema, state_dict, ...) and "module." before names are taken off. A safetensors file without gigasr's
    header may have it in a config.json beside it, as in a folder from the Hugging Face Hub.
    """
    if is_onnx(path):
        raise CheckpointError(f"{path}: expected a file of weights, got an ONNX file; it can only be run as it is")
    is_zip = zipfile.is_zipfile(path)
    if is_zip or path.suffix.lower() in PICKLED:
        state = load_plain(path, is_zip)
        return unwrap(state, path), state.get(HEADER_KEY, {}) if isinstance(state, dict) else {}
    with open_safetensors(path) as file:
        header = file.metadata() or {}
    return LazyTensors(path), header if "kind" in header else header | read_header_config(path.with_name(CONFIG))


def load_for_inference(network: M, state: Mapping[str, Tensor], path: Path) -> M:
    """Fill a network with the weights of a file, for inference; CheckpointError where they don't fit."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise CheckpointError(f"{path}: expected weights that fit its config, got: {reason}; save it again") from None
    return network.eval().requires_grad_(False)


def load_plain(path: Path, is_zip: bool) -> Any:  # whatever was saved
    """Tensors and plain data of a file that torch.save wrote; anything else is an error and is not run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except DAMAGED_WEIGHTS as error:
        lines = [line for line in str(error).splitlines() if "weights_only" not in line]
        reason = " ".join(lines[:1]).strip()[:200] or "another kind of file, or one that ends too early"
        raise CheckpointError(
            f"{path}: expected tensors and plain data, got: {reason}; ask for it as safetensors"
        ) from None


def unwrap(state: object, path: Path) -> dict[str, Tensor]:
    """The tensors by name, out of the dictionaries around them."""
    for wrapper in WRAPPERS:
        inner = state.get(wrapper) if isinstance(state, dict) else None
        state = inner if inner and isinstance(inner, dict) else state
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, dict) else {}
    if not tensors:
        raise CheckpointError(f"{path}: expected tensors by name, got none; choose a file of weights")
    return {name.removeprefix("module.").removeprefix("netG."): tensor for name, tensor in tensors.items()}


def read_header_config(path: Path) -> dict[str, str]:
    """gigasr's header from a config.json, empty where there is none in it."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return {"format": config["format"], "kind": config["kind"], "config": json.dumps(config["config"])}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def save_folder(
    path: Path, state: dict[str, Tensor], kind: str, config: dict[str, Any], dtype: torch.dtype, **notes: str
) -> None:
    """Save a model in the layout of the Hugging Face Hub: config.json, model.safetensors and README.md in a folder."""
    path.mkdir(parents=True, exist_ok=True)
    save_weights(path / MODEL, state, kind, config, dtype, **notes)
    with atomic_write(path / CONFIG) as temporary:
        temporary.write_text(json.dumps({"format": FORMAT, "kind": kind, "config": config}, indent=1), encoding="utf-8")
    licence = notes.get("licence", "").partition(";")[0].lower()
    task = "text-to-image" if kind == "base" else "image-to-image"
    front = {"library_name": "gigasr", "license": licence, "pipeline_tag": task}
    lines = ["---", *(f"{key}: {value}" for key, value in front.items() if value), "---", "", f"A gigasr {kind}."]
    with atomic_write(path / README) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def save_pickled(
    path: Path, state: dict[str, Tensor], kind: str, config: dict[str, Any], dtype: torch.dtype, **notes: str
) -> None:
    """Save a model as {"params_ema": tensors} with torch.save, for tools that want that; the header is beside it."""
    header = {"format": FORMAT, "kind": kind, "config": json.dumps(config), **notes}
    tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    with atomic_write_weights(path) as temporary:
        torch.save({"params_ema": tensors, HEADER_KEY: header}, temporary)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Save a training state (tensors, numbers, strings in dicts and lists)."""
    with atomic_write_weights(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read what save_state wrote; nothing but plain data is unpickled. Raises CheckpointError for other files."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED_WEIGHTS as error:
        reason = join_lines(str(error))[:100] or type(error).__name__
        raise CheckpointError(f"{path}: expected a training state, got another or a damaged file: {reason}") from None
    return state
