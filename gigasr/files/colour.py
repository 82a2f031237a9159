"""Colour management: inks and pictures with a profile of their own to sRGB."""

import io
import logging
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

logger = logging.getLogger(__name__)

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC


def cmyk_to_srgb(image: Image.Image, name: str) -> Image.Image:
    """Convert a CMYK image through its profile; through that of coated paper where it has none that is usable."""
    embedded = image.info.get("icc_profile")
    for profile in filter(None, (embedded, _coated_paper())):
        try:
            return _transform(profile, image.mode).apply(image)
        except (ImageCms.PyCMSError, OSError) as error:
            logger.warning("%s: its CMYK profile is unusable (%s); converted without it", name, error)
    return image.convert("RGB")


def srgb_converter(profile: bytes, is_gray: bool, name: object) -> Callable[[np.ndarray], np.ndarray]:
    """What brings 8-bit colours, [H, W, 1 or 3], from a profile to sRGB; nothing, with a warning, if it is unusable."""
    try:
        transform = _transform(profile, "L" if is_gray else "RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        logger.warning("%s: its colour profile is unusable (%s) and left out", name, error)
        return lambda samples: samples

    def convert(samples: np.ndarray) -> np.ndarray:
        image = Image.fromarray(samples[:, :, 0] if is_gray else np.ascontiguousarray(samples))
        return np.asarray(transform.apply(image))[:, :, : samples.shape[2]]

    return convert


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    """From a profile and PIL mode to sRGB."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", _INTENT)


def _coated_paper() -> bytes:
    import pyvips

    return pyvips.Operation.call("profile_load", "cmyk")
