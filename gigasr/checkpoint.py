"""Files of weights: safetensors with the config in the header, written atomically; training state beside them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gigasr.files import replacing

FORMAT = "1"  # of the header


class CheckpointError(ValueError):
    """A file that cannot be used as a checkpoint."""


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
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def load_weights(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]:
    """Read what save_weights wrote.

    returns: state dict (as stored), config, the whole header
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: expected a safetensors file, got: {error}; download or save it again") from None
    if header.get("kind") != kind or "config" not in header:
        found = header.get("kind", "a file without gigasr's header")
        raise CheckpointError(f"{path}: expected the weights of a gigasr {kind}, got {found}; choose another file")
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected format {FORMAT}, got {header.get('format')}; update gigasr")
    return state, json.loads(header["config"]), header


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Save a training state (tensors, numbers, strings in dicts and lists)."""
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read what save_state wrote; nothing but plain data is unpickled."""
    return torch.load(path, map_location="cpu", weights_only=True)
