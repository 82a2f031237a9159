"""Colour management: inks and pictures with a profile of their own to sRGB."""

import io
import logging

import numpy as np
from PIL import Image, ImageCms

logger = logging.getLogger(__name__)

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC


def cmyk_to_srgb(image: Image.Image, name: str) -> Image.Image:
    """Convert a CMYK image through its profile; through that of coated paper where it has none that is usable."""
    embedded = image.info.get("icc_profile")
    for profile in filter(None, (embedded, _coated_paper())):
        try:
            return _transform(image, profile)
        except (ImageCms.PyCMSError, OSError) as error:
            logger.warning("%s: its CMYK profile is unusable (%s); converted without it", name, error)
    return image.convert("RGB")


def to_srgb(samples: np.ndarray, profile: bytes, name: object) -> np.ndarray:
    """Convert 8-bit colours from a profile to sRGB; unchanged, with a warning, if it is unusable.

    samples: [H, W, C], C = 1 gray or 3 RGB
    """
    image = Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else np.ascontiguousarray(samples))
    try:
        converted = _transform(image, profile)
    except (ImageCms.PyCMSError, OSError) as error:
        logger.warning("%s: its colour profile is unusable (%s) and left out", name, error)
        return samples
    return np.asarray(converted)[:, :, : samples.shape[2]]


def _transform(image: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, "RGB", _INTENT)
    return transform.apply(image)


def _coated_paper() -> bytes:
    import pyvips

    return pyvips.Operation.call("profile_load", "cmyk")
