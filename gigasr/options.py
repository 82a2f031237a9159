"""Options of an upscale.

The command line, the page, fingerprints and metadata derive from the fields.
"""

import operator
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gigasr.sizes import MAX_SCALE, checked_size

MAX_SEED = 2**63 - 1  # limit of torch's generators
Limits = tuple[float | None, float | None]  # lowest and highest value
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Rule:
    """The help text, limits and effects of an option."""

    help: str
    limits: Limits = (None, None)
    advice: str = "leave it out"  # end of the error for a wrong value
    check: Callable[[Any], Any] | None = None  # replaces type and limits: returns the value or raises ValueError
    short: str = ""  # short name on the command line, e.g. -s
    needs: str = ""  # the option that this option needs to have an effect
    is_strength: bool = False  # 0 switches an effect off, 1 is as trained
    is_noted: bool = False  # in the metadata of results, unless it is the default
    changes_result: bool = True  # and therefore belongs to the fingerprint


def option(default: Any, help: str, limits: Limits = (None, None), **more: Any) -> Any:
    """Define a field of options.

    more: other fields of the rule
    """
    return field(default=default, metadata={"rule": Rule(help, limits, **more)})


@dataclass(frozen=True)
class Options:
    """Options of a command.

    The constructor checks every value and raises ValueError for a wrong one.
    """

    def __post_init__(self) -> None:
        types = self.field_types()
        for name, rule in self.rules().items():
            value, default = getattr(self, name), getattr(type(self), name)
            if value is not None or default is not None:
                object.__setattr__(self, name, _checked(name, value, types[name], rule))

    def changed(self) -> dict[str, Any]:
        """Return the values that differ from their defaults, by name."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default}

    def notes(self) -> dict[str, str]:
        """Return the metadata of results, beyond prompt, seed and model."""
        noted = {name: rule for name, rule in self.rules().items() if rule.is_noted}
        changed = self.changed()
        names = [name for name, rule in noted.items() if (rule.needs or name) in changed]
        return {note_label(name): str(getattr(self, name)) for name in names}

    @classmethod
    def rules(cls) -> dict[str, Rule]:
        """Return the rules of the fields by name."""
        return {each.name: each.metadata["rule"] for each in fields(cls) if "rule" in each.metadata}

    @classmethod
    def field_types(cls) -> dict[str, Any]:
        """Return the types of the fields by name; T | None counts as T."""
        found = get_type_hints(cls)
        for name, hint in found.items():
            others = [each for each in get_args(hint) if each is not NoneType]
            if NoneType in get_args(hint) and len(others) == 1:
                found[name] = others[0]
        return found


def note_label(name: str) -> str:
    """Return the metadata key of an option: "mix_at" -> "Mix at"."""
    return name.replace("_", " ").capitalize()


def _checked(name: str, value: Any, kind: Any, rule: Rule) -> Any:
    """Return a checked value in the type of the field.

    Raises ValueError for a value of another type or beyond the limits.
    """
    if rule.check is not None:
        return rule.check(value)
    if kind is float or kind is int:
        return _checked_number(name, value, kind, rule)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            *others, last = map(str, get_args(kind))
            raise ValueError(f"{name}: expected {', '.join(others)} or {last}, got {value!r}; {rule.advice}")
    elif not isinstance(value, kind):
        expected = "a text" if kind is str else kind.__name__
        raise ValueError(f"{name}: expected {expected}, got {type(value).__name__}; {rule.advice}")
    return value


def _checked_number(name: str, value: Any, kind: type[int] | type[float], rule: Rule) -> float:
    low, high = rule.limits
    expected = f"at least {low}" if high is None else f"{low}..{high}"
    number: float | None = None
    with suppress(TypeError, ValueError):
        number = operator.index(value) if kind is int else float(value)
    is_inside = number is not None and (low is None or number >= low) and (high is None or number <= high)
    if number is None or isinstance(value, str) or not is_inside:
        raise ValueError(f"{name}: expected {expected}, got {value!r}; {rule.advice}")
    return number


def check_seed(seed: int) -> int:
    """Convert a seed of any integer type to int.

    Raises ValueError for a seed that torch's generators refuse.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        raise ValueError(f"seed: expected an integer, got {seed!r}; 0 is as good as any") from None
    if not 0 <= number <= MAX_SEED:
        raise ValueError(f"seed: expected 0..2**63 - 1, got {number}; choose another")
    return number


def _strength(help: str, highest: float, advice: str) -> Any:
    return option(1.0, help, (0, highest), advice=advice, is_strength=True, is_noted=True)


@dataclass(frozen=True)
class UpscaleOptions(Options):
    """All options of an upscale."""

    prompt: str = option("", "What the image shows.", advice="'' says nothing", short="-p")
    scale: float | None = option(
        None, "Factor, 1 to 64.  [default: the model's]", (1, MAX_SCALE), advice="upscale twice for more", short="-s"
    )
    size: tuple[int, int] | str | None = option(
        None,
        "Size instead of a factor: 4k or px of the longest side, or WIDTHxHEIGHT (fitted inside).",
        check=checked_size,
    )
    model: str = option("upsampler_lite", "Bundled name, file, folder or Hugging Face id.", short="-n")
    detail: float = _strength(
        "How much detail is added: 0 = none, only bicubic; 1 = as trained; above = crisper, less exact.",
        2,
        "1 is what the network was trained for",
    )
    restore: float = _strength(
        "How much noise, JPEG artifacts and blur are removed, by a model that restores; 0 = keep the input's.",
        1,
        "0 keeps the input's noise and damage",
    )
    fidelity: float = _strength(
        "How far the result is corrected to match the input when reduced; 0 = off.",
        1,
        "1 keeps the input's colours exactly",
    )
    seed: int = option(0, "The same seed gives the same picture.", (0, MAX_SEED), check=check_seed)
    tile: int = option(
        0, "Side of the network's tiles in px.  [default: auto]", (0, None), advice="0 = auto", short="-t"
    )
    precision: Precision = option("auto", "Of the network's arithmetic.")
    quality: int | None = option(
        None, "For jpg, webp (100 = lossless) and avif.  [default: 95]", (1, 100), advice="100 is best"
    )
    bit_depth: Literal[8, 16] | None = option(None, "16 for png and tif.  [default: the input's]")
    batch: int = option(
        0,
        "Maximum number of tiles run at once.  [default: auto]",
        (0, None),
        advice="0 = auto",
        changes_result=False,
    )
    strip: int = option(
        0, "Low-res rows per strip.  [default: auto]", (0, None), advice="0 = auto", changes_result=False
    )
    device: str = option("auto", "auto, cpu, cuda, mps, or cuda:0,cuda:1.", short="-g", changes_result=False)
    overwrite: bool = option(False, "Replace files that exist.", changes_result=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale is not None and self.size is not None:
            raise ValueError("size: expected a scale or a size, got both; give one of them")


STRENGTHS = tuple(name for name, rule in UpscaleOptions.rules().items() if rule.is_strength)
