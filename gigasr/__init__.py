"""gigasr: one-pass, text-conditioned image super-resolution after GigaGAN."""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["Picture", "SuperResolver", "read_image", "write_image"]

if TYPE_CHECKING:
    from gigasr.files.image_writer import write_image
    from gigasr.files.images import read_image
    from gigasr.files.picture import Picture
    from gigasr.pipeline import SuperResolver

_LAZY = {
    "SuperResolver": "pipeline",
    "Picture": "files.picture",
    "read_image": "files.images",
    "write_image": "files.image_writer",
}


def __dir__() -> list[str]:
    """List the public names for tab completion."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `import gigasr` alone stays fast."""
    if name not in _LAZY:
        raise AttributeError(f"module 'gigasr' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"gigasr.{_LAZY[name]}"), name)
