"""Model names to weights: bundled with the package, or a local file."""

from pathlib import Path

from gigasr.checkpoint import CheckpointError, load_weights
from gigasr.config import UpsamplerConfig, parse
from gigasr.engine import Model, PromptedUpsampler
from gigasr.upsampler import Upsampler

WEIGHTS = Path(__file__).parent / "weights"
DEFAULT = "upsampler_lite"


def bundled() -> list[str]:
    """Names of the upsamplers that ship in the package."""
    return sorted(path.stem for path in WEIGHTS.glob("upsampler_*.safetensors"))


def find(name: str) -> Path:
    """The file of a model: a bundled name or a path."""
    path = Path(name)
    if path.is_file():
        return path
    if name in bundled():
        return WEIGHTS / f"{name}.safetensors"
    raise ValueError(f"model: expected a file or one of {', '.join(bundled())}, got '{name}'; check the spelling")


def load_model(name: str = DEFAULT) -> Model:
    """What SuperResolver takes, by name or path."""
    return PromptedUpsampler(load_upsampler(name))


def load_upsampler(name: str = DEFAULT) -> Upsampler:
    """Build an upsampler from its weights, in fp32, on the CPU, ready for inference."""
    path = find(name)
    state, config, _ = load_weights(path, "upsampler")
    network = Upsampler(parse(UpsamplerConfig, config, str(path)))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise CheckpointError(f"{path}: expected weights that fit its config, got: {reason}; save it again") from None
    return network.eval().requires_grad_(False)
