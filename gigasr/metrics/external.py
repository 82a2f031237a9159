"""Third-party packages and weights of some metrics."""

import importlib
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from gigasr.errors import DAMAGED_WEIGHTS


def import_basicsr() -> ModuleType:
    """Import basicsr's metrics; no other function imports basicsr.

    basicsr 1.4.2 imports a torchvision module by an old name, so the module is registered under both names.
    """
    renamed = importlib.import_module("torchvision.transforms._functional_tensor")
    sys.modules.setdefault("torchvision.transforms.functional_tensor", renamed)
    advice = "run pip install 'gigasr[eval]' (its basicsr builds on Python 3.12 or older)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_package("basicsr.metrics", "the package basicsr 1.4.2", advice)


def import_package(module: str, package: str, advice: str) -> ModuleType:
    """Import a module; ImportError names the package and the advice."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"metrics: expected {package}, got '{error}'; {advice}") from error


def read_features(path: str | Path) -> dict[str, Any]:
    """Read a file of torchvision's weights, without the prefix `features.`.

    The prefix is in files of whole models, not in files of their `features` alone. Raises ValueError for damaged files.
    """
    try:
        loaded = dict(torch.load(path, map_location="cpu", weights_only=True))
    except DAMAGED_WEIGHTS as error:
        raise ValueError(f"{path}: expected weights, got {type(error).__name__}; download the file again") from None
    return {str(key).removeprefix("features."): value for key, value in loaded.items()}
