"""Read and write weights and training states.

Weights are safetensors files with the config in the header. All files are written atomically.
"""

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
    """A file that is no usable checkpoint."""


@contextmanager
def atomic_write_weights(path: Path) -> Iterator[Path]:
    """Write weights by `atomic_write`; raise OSError on a full disk.

    torch and safetensors raise other errors on a full disk, without the file's name.
    """
    with atomic_write(path) as temporary:
        try:
            yield temporary
        except (RuntimeError, SafetensorError) as error:
            reason = join_lines(str(error))[:100]
            raise OSError(errno.EIO, f"can't be written, is the disk full? ({reason})", str(path)) from error


def save_weights(
    path: Path, state: dict[str, Tensor], kind: str, config: dict[str, Any], dtype: torch.dtype, **notes: str
) -> None:
    """Save a model as safetensors, with all that is needed to build the network.

    state:  flat state dict; floating-point tensors are stored in dtype
    kind:   kind of the network, e.g. "upsampler"
    config: the dump of the network's config, in types of JSON
    notes:  further strings for the header, e.g. licence
    """
    header = {"format": FORMAT, "kind": kind, "config": json.dumps(config), **notes}
    tensors = {
        k: v.detach().to("cpu", dtype if v.is_floating_point() else v.dtype).contiguous() for k, v in state.items()
    }
    with atomic_write_weights(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def load_weights(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]:
    """Read a file of save_weights; raises CheckpointError for other kinds.

    returns: state dict in the stored dtypes, config, the whole header
    """
    tensors, header = open_weights(path)
    if header.get("kind") != kind or "config" not in header:
        found = header.get("kind", "a file without gigasr's header")
        raise CheckpointError(f"{path}: expected the weights of a gigasr {kind}, got {found}; choose another file")
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected format {FORMAT}, got {header.get('format')}; update gigasr")
    return dict(tensors), json.loads(header["config"]), header


class LazyTensors(Mapping[str, Tensor]):
    """The tensors of a safetensors file, each read at every access and not kept."""

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
    """Open a safetensors file for a with statement."""
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise CheckpointError(f"{path}: expected a safetensors file, got: {error}; download or save it again") from None


def is_onnx(path: Path) -> bool:
    """Tell from the suffix whether a file is an ONNX network instead of weights."""
    return path.suffix.lower() == ONNX


def open_weights(path: Path) -> tuple[Mapping[str, Tensor], dict[str, str]]:
    """Read the tensors and the header of a file of weights.

    The file is safetensors, with lazily read tensors, or a file of torch.save, from which only plain data is unpickled.
    Enclosing dictionaries (params_ema, G_ema, state_dict, ...) and the prefix "module." of names are removed. A
    safetensors file without gigasr's header takes it from a config.json in the same folder, as on the Hugging Face Hub.

    returns: the tensors by name; the header, empty if the file is not gigasr's
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
    """Load weights into a network for inference, without gradients.

    path: names the file in the CheckpointError for weights that do not fit
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise CheckpointError(f"{path}: expected weights that fit its config, got: {reason}; save it again") from None
    return network.eval().requires_grad_(False)


def load_plain(path: Path, is_zip: bool) -> Any:  # whatever was saved
    """Load tensors and plain data from a file of torch.save.

    Raises CheckpointError for other content, without running it.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except DAMAGED_WEIGHTS as error:
        lines = [line for line in str(error).splitlines() if "weights_only" not in line]
        reason = " ".join(lines[:1]).strip()[:200] or "another kind of file, or one that ends too early"
        raise CheckpointError(
            f"{path}: expected tensors and plain data, got: {reason}; ask for it as safetensors"
        ) from None


def unwrap(state: object, path: Path) -> dict[str, Tensor]:
    """Return the tensors by name, without enclosing dictionaries and prefixes."""
    for wrapper in WRAPPERS:
        inner = state.get(wrapper) if isinstance(state, dict) else None
        state = inner if inner and isinstance(inner, dict) else state
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, dict) else {}
    if not tensors:
        raise CheckpointError(f"{path}: expected tensors by name, got none; choose a file of weights")
    return {name.removeprefix("module.").removeprefix("netG."): tensor for name, tensor in tensors.items()}


def read_header_config(path: Path) -> dict[str, str]:
    """Read gigasr's header from a config.json; return an empty one if absent."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return {"format": config["format"], "kind": config["kind"], "config": json.dumps(config["config"])}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def save_folder(
    path: Path, state: dict[str, Tensor], kind: str, config: dict[str, Any], dtype: torch.dtype, **notes: str
) -> None:
    """Save a model as a folder in the layout of the Hugging Face Hub.

    The folder holds config.json, model.safetensors and README.md.
    """
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
    """Save a model with torch.save as {"params_ema": tensors, "gigasr": header}.

    Other upscaling tools read the tensors under the key "params_ema".
    """
    header = {"format": FORMAT, "kind": kind, "config": json.dumps(config), **notes}
    tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    with atomic_write_weights(path) as temporary:
        torch.save({"params_ema": tensors, HEADER_KEY: header}, temporary)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Save a training state (tensors, numbers, strings in dicts and lists)."""
    with atomic_write_weights(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read a file of save_state; only plain data is unpickled.

    Raises CheckpointError for other files.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED_WEIGHTS as error:
        reason = join_lines(str(error))[:100] or type(error).__name__
        raise CheckpointError(f"{path}: expected a training state, got another or a damaged file: {reason}") from None
    return state
