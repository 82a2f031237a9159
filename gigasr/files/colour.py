"""Colour management: conversion of CMYK and of embedded profiles to sRGB."""

import io
import logging
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

logger = logging.getLogger(__name__)

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC


def cmyk_to_srgb(image: Image.Image, name: str) -> Image.Image:
    """Convert a CMYK image to sRGB through its profile.

    The profile of coated paper replaces a missing or unusable one. A warning names the image and the unusable profile.
    """
    embedded = image.info.get("icc_profile")
    for profile in filter(None, (embedded, _coated_paper())):
        try:
            return _transform(profile, image.mode).apply(image)
        except (ImageCms.PyCMSError, OSError) as error:
            logger.warning("%s: its CMYK profile is unusable (%s); converted without it", name, error)
    return image.convert("RGB")


def srgb_converter(profile: bytes, is_gray: bool, name: object) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from 8-bit colours of a profile to sRGB.

    The function maps [H, W, C] to [H, W, C], with C = 1 for gray and 3 for RGB. If the profile is unusable, a warning
    names the picture, and the function returns its argument.
    """
    try:
        transform = _transform(profile, "L" if is_gray else "RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        logger.warning("%s: its colour profile is unusable (%s) and left out", name, error)
        return lambda samples: samples

    def convert(samples: np.ndarray) -> np.ndarray:
        plane = samples[:, :, 0] if is_gray else np.ascontiguousarray(samples)
        converted = transform.apply(Image.fromarray(plane))
        return np.asarray(converted)[:, :, : samples.shape[2]]

    return convert


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    """Build the transform from a profile and PIL mode to sRGB."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(source, target, mode, "RGB", _INTENT)


def _coated_paper() -> bytes:
    import pyvips

    return pyvips.Operation.call("profile_load", "cmyk")
