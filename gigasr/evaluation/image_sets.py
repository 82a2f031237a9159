"""Image folders as sets of squares, prepared as in the paper, and FID features."""

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from gigasr.files.formats import STILL_SUFFIXES, visible_files
from gigasr.files.images import load_rgb
from gigasr.metrics import FeatureSet, FrozenFeatures


def list_images(folder: Path) -> list[Path]:
    """Find all images below a folder, sorted by name."""
    found = visible_files(folder, STILL_SUFFIXES)
    if not found:
        raise ValueError(f"{folder}: expected a folder with images, got none; check the path")
    return found


def load_square(path: Path, size: int) -> Tensor:
    """Read the middle square of an image -> [3, size, size] in [0, 1].

    Lanczos resizes it; transparent parts become white.

    Source: GigaGAN (arXiv:2303.05511), its published evaluation: cut to the shorter side, then Lanczos.
    """
    image = load_rgb(path)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return pil_to_tensor(square.resize((size, size), Image.Resampling.LANCZOS)) / 255


def collect_features(
    paths: Sequence[Path], size: int, features: FrozenFeatures, progress: Callable[[int], None] = lambda total: None
) -> FeatureSet:
    """Extract the features of images, cut to squares of `size` px.

    progress: called after each image with the number of all images
    """
    found = FeatureSet(features)
    for path in paths:
        found.add(load_square(path, size))
        progress(len(paths))
    return found
