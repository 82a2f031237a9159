"""Find and load the weights of base models: bundled, or a local file or folder."""

from pathlib import Path

from gigasr.config.strict import parse
from gigasr.models.checkpoint import load_for_inference, load_weights
from gigasr.models.hub import local_weights
from gigasr_base.config import GeneratorConfig
from gigasr_base.generator import Generator

BASE_WEIGHTS = Path(__file__).parent / "weights"
DEFAULT_BASE_MODEL = "base_lite"


def bundled_base_models() -> list[str]:
    """List the base models in the package."""
    return sorted(path.stem for path in BASE_WEIGHTS.glob("base_*.safetensors"))


def find_base_model(name: str) -> Path:
    """Find the weights file of a base model.

    name: a bundled name, a file, or a folder made by `gigasr models convert`
    """
    if path := local_weights(name):
        return path
    if name in bundled_base_models():
        return BASE_WEIGHTS / f"{name}.safetensors"
    names = ", ".join(bundled_base_models())
    raise ValueError(f"model: expected a weights file or one of {names}, got '{name}'; check the spelling")


def load_base(name: str = DEFAULT_BASE_MODEL) -> Generator:
    """Load a base generator for inference, in fp32, on the CPU."""
    path = find_base_model(name)
    state, config, _ = load_weights(path, "base")
    return load_for_inference(Generator(parse(GeneratorConfig, config, str(path))), state, path)
