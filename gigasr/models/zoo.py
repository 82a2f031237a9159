"""Find and load models by name.

A name is a bundled model, a local file or folder, or a model on the Hugging Face Hub.
"""

import functools
import json
from pathlib import Path

from gigasr.config.networks import UpsamplerConfig
from gigasr.config.strict import parse
from gigasr.files.formats import suffix_of
from gigasr.inference.engine import Model
from gigasr.models.aurasr import SIGNATURE, AuraConfig, AuraModel, AuraWeights
from gigasr.models.checkpoint import (
    CONFIG,
    CheckpointError,
    is_onnx,
    load_for_inference,
    load_weights,
    open_weights,
    save_folder,
    save_pickled,
    save_weights,
)
from gigasr.models.hub import HubName, cached, download_model, local_weights
from gigasr.models.native import PromptedUpsampler
from gigasr.models.onnx_model import describe_onnx, load_onnx
from gigasr.models.spandrel_backend import SpandrelModel, load_spandrel
from gigasr.networks.text import WEIGHTS
from gigasr.networks.upsampler import Upsampler
from gigasr.options import UpscaleOptions

DEFAULT_MODEL = UpscaleOptions.model


def bundled_models() -> list[str]:
    """List the names of the upsamplers in the package."""
    return sorted(path.stem for path in WEIGHTS.glob("upsampler_*.safetensors"))


def find_model(name: str) -> Path:
    """Find the file of a model; download it if necessary.

    A model of the Hub that is not in the cache is downloaded; the source and the size are logged first. Raises
    ValueError for unknown names.

    name: a bundled name, a file, a folder, or owner/name[@revision] of the Hugging Face Hub
    """
    if path := local_weights(name):
        return path
    if name in bundled_models():
        return WEIGHTS / f"{name}.safetensors"
    if on_hub := HubName.parse(name):
        return cached(on_hub) or download_model(on_hub)
    raise ValueError(
        f"model: expected a file, a folder, a Hugging Face id or one of {', '.join(bundled_models())}, got '{name}'; "
        "check the spelling"
    )


def load_model(name: str = DEFAULT_MODEL) -> Model:
    """Load a model by name or path.

    The weights are gigasr's, AuraSR's, an ONNX file, or of any kind that spandrel knows.
    """
    path = find_model(name)
    if is_onnx(path):
        return load_onnx(path)
    tensors, header = open_weights(path)
    if all(key in tensors for key in SIGNATURE):
        return AuraModel(AuraWeights(tensors, read_aura_config(path), str(path)))
    if "kind" in header:
        return PromptedUpsampler(load_upsampler(str(path)))
    from gigasr.models.spandrel_plugin import register

    register()
    return load_spandrel(tensors, str(path))


def model_scale(name: str) -> int:
    """Return the scale of a model.

    The header of gigasr's upsamplers tells the scale. Other models are built once; the last 8 scales are cached.
    """
    path = find_model(name)
    return _scale(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _scale(path: Path, changed: int) -> int:
    header = {} if is_onnx(path) else open_weights(path)[1]
    if header.get("kind") == "upsampler":
        return parse(UpsamplerConfig, json.loads(header["config"]), str(path)).scale
    return load_model(str(path)).scale


def describe_weights(path: Path) -> dict[str, str]:
    """Describe a file of weights in words: kind, scale, parameters, size and notes."""
    if is_onnx(path):
        return describe_onnx(path)
    tensors, header = open_weights(path)
    own_kind = header.get("kind")
    model = load_model(str(path)) if own_kind in (None, "upsampler") else None  # a text tower or a base model
    kind = f"gigasr {own_kind}" if own_kind else "AuraSR"
    if isinstance(model, SpandrelModel):
        kind = f"{model.descriptor.architecture.name}, by spandrel"
    parameters = sum(tensor.numel() for tensor in tensors.values())
    notes = {name: text for name, text in header.items() if name not in ("format", "kind", "config")}
    return {
        "file": str(path),
        "kind": kind,
        **({} if model is None else {"scale": str(model.scale), "prompt": "yes" if model.takes_text else "no"}),
        "parameters": f"{parameters / 1e6:.2f} M",
        "size": f"{path.stat().st_size / 1e6:.1f} MB",
        **notes,
    }


def convert_weights(source: Path, target: Path) -> None:
    """Save gigasr's weights as another kind of file.

    The target's suffix tells the kind: .safetensors, .pth with params_ema, or none for a folder in the Hub's layout.
    """
    tensors, header = open_weights(source)
    if "kind" not in header:
        raise ValueError(f"{source}: expected gigasr's own weights, got others; they run as they are")
    savers = {".safetensors": save_weights, ".pth": save_pickled, "": save_folder}
    suffix = suffix_of(target)
    if suffix not in savers:
        raise ValueError(f"{target}: expected .safetensors, .pth or a folder's name, got {suffix}; choose one")
    state = dict(tensors)
    dtype = next(tensor.dtype for tensor in state.values() if tensor.is_floating_point())
    notes = {name: text for name, text in header.items() if name not in ("format", "kind", "config")}
    savers[suffix](target, state, header["kind"], json.loads(header["config"]), dtype, **notes)


def read_aura_config(path: Path) -> AuraConfig:
    """Read the config.json in the folder of AuraSR's weights.

    Without a config.json the settings of the public models hold.
    """
    config = path.with_name(CONFIG)
    if not config.is_file():
        return AuraConfig()
    try:
        return parse(AuraConfig, {"skip_connect_scale": None} | json.loads(config.read_text("utf-8")), str(config))
    except (json.JSONDecodeError, TypeError, UnicodeDecodeError):
        raise CheckpointError(f"{config}: expected AuraSR's config, got something else; fetch it again") from None


def load_upsampler(name: str = DEFAULT_MODEL) -> Upsampler:
    """Build an upsampler from its weights, in fp32, on the CPU, ready for inference."""
    path = find_model(name)
    state, config, _ = load_weights(path, "upsampler")
    return load_for_inference(Upsampler(parse(UpsamplerConfig, config, str(path))), state, path)
