"""Damage of pictures: kinds, strengths, and frequency in training."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from gigasr.config.training import RestorationConfig

NoiseKind = Literal["white", "gray", "shot", "camera", "grain"]
BlurKind = Literal["gaussian", "defocus", "motion"]
Origin = Literal["", "scan", "screenshot", "web", "phone"]
Keep = Literal["nothing", "grain", "all"]
_Range = tuple[float, float]

COARSENESS: dict[NoiseKind, _Range] = {"camera": (0.3, 1.0), "grain": (0.3, 0.9)}  # px
LARGER = 2  # times the low-res size: the size of a picture in its first round of damage


@dataclass(frozen=True)
class Blur:
    """Blur by a Gaussian, a defocused lens or a straight motion."""

    sigma: float  # px; std of the kernel; of a motion's kernel, along its path
    kind: BlurKind = "gaussian"
    angle: float = 0.0  # radians; of a motion's path, from the x axis


@dataclass(frozen=True)
class Noise:
    """Noise of one kind and strength."""

    std: float  # 8-bit levels, at middle gray
    kind: NoiseKind = "white"
    coarseness: float = 0.0  # px; sigma of the Gaussian that correlates neighbouring pixels


@dataclass(frozen=True)
class Sharpening:
    """An unsharp mask."""

    radius: float  # px
    percent: int


@dataclass(frozen=True)
class Jpeg:
    """One round of JPEG compression."""

    quality: int
    subsampling: int = 2  # Pillow's number: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0
    offset: tuple[int, int] = (0, 0)  # px right and down; shift of the picture in the grid of blocks


@dataclass(frozen=True)
class Damage:
    """All damage of one picture, in order of application; by default no damage.

    All lengths are px of the damaged picture.
    """

    before: "Damage | None" = None  # a first round, at LARGER times this picture's size
    blur: Blur | None = None
    reduction: Literal["bicubic", "lanczos", "bilinear", "area"] = "bicubic"
    shrunk: float = 1.0  # the picture was reduced by this factor and resized back
    noise: Noise | None = None
    sharpening: Sharpening | None = None
    colours: int = 0  # size of a palette; 0 = none
    jpegs: tuple[Jpeg, ...] = ()
    origin: Origin = ""  # a named source of such damage
    keep: Keep = "nothing"  # the part of the damage that the caption asks to keep
    is_said: bool = False  # whether the caption states the damage

    @property
    def is_clean(self) -> bool:
        """Whether the picture is a plain reduction of the high-res picture."""
        return replace(self, origin="", keep="nothing", is_said=False) == Damage()


def chance(probability: float, rng: Random) -> bool:
    """Draw True with this probability."""
    return rng.random() < probability


def towards_low(limits: _Range, power: float, rng: Random) -> float:
    """Draw a value between the limits; a larger power favours the lower limit.

    power: 1 is uniform
    """
    low, high = limits
    return low + (high - low) * rng.random() ** power


def draw_blur(limits: _Range, rng: Random) -> Blur:
    """Draw blur: Gaussian in six of ten cases, else defocus or motion.

    limits: px, of sigma
    """
    kind: BlurKind = rng.choices(("gaussian", "defocus", "motion"), (6, 2, 2))[0]
    return Blur(rng.uniform(*limits), kind, rng.uniform(0, math.pi) if kind == "motion" else 0.0)


def draw_noise(limits: _Range, rng: Random, kinds: tuple[NoiseKind, ...] = ()) -> Noise:
    """Draw noise; coarse noise hides more of a picture, so it gets a smaller std.

    limits: 8-bit levels, of the std
    kinds:  to choose from, equally often; empty = all, in shares of their own
    """
    kind = rng.choice(kinds) if kinds else rng.choices(("white", "gray", "shot", "camera", "grain"), (6, 4, 2, 5, 3))[0]
    coarseness = rng.uniform(*COARSENESS.get(kind, (0.0, 0.0)))
    return Noise(max(limits[0], towards_low(limits, 1.5, rng) / (1 + coarseness)), kind, coarseness)


def draw_jpeg(limits: _Range, rng: Random) -> Jpeg:
    """Draw a JPEG compression; half the pictures have been cropped since.

    After a crop the grid of blocks starts anywhere.

    limits: of the quality
    """
    offset = (rng.randrange(16), rng.randrange(16)) if chance(0.5, rng) else (0, 0)
    return Jpeg(round(rng.uniform(*limits)), rng.choices((0, 1, 2), (3, 1, 6))[0], offset)


def draw_jpegs(limits: _Range, rng: Random) -> tuple[Jpeg, ...]:
    """Draw one round of JPEG mostly, sometimes two or three."""
    return tuple(draw_jpeg(limits, rng) for _ in range(rng.choices((1, 2, 3), (8, 2, 1))[0]))


def draw_sharpening(max_percent: int, rng: Random) -> Sharpening:
    """Draw an unsharp mask of at least 40 percent.

    max_percent: at most 150 beside noise; a clean picture bears 300
    """
    return Sharpening(rng.uniform(0.4, 1.5), rng.randint(40, max_percent))


def draw_single(rng: Random) -> Damage:
    """Draw a single cause, of any strength."""
    cause = rng.choices(("noise", "jpeg", "blur", "shrunk", "sharpening", "colours"), (36, 30, 20, 5, 6, 3))[0]
    match cause:
        case "noise":
            return Damage(noise=draw_noise((1, 40), rng))
        case "jpeg":
            return Damage(jpegs=draw_jpegs((15, 95), rng))
        case "blur":
            return Damage(blur=draw_blur((0.3, 2.0), rng))
        case "shrunk":
            return Damage(shrunk=rng.uniform(1.2, 3.0))
        case "sharpening":
            return Damage(sharpening=draw_sharpening(300, rng))
    return Damage(colours=rng.choice((16, 32, 64, 128, 256)))


def draw_several(rng: Random) -> Damage:
    """Draw two causes or more, each a little weaker than alone."""
    causes = set(rng.sample(("blur", "noise", "jpeg"), rng.choice((2, 2, 3))))
    return Damage(
        blur=draw_blur((0.3, 1.5), rng) if "blur" in causes else None,
        reduction=rng.choice(("bicubic", "bicubic", "lanczos", "bilinear", "area")),
        shrunk=rng.uniform(1.1, 2.5) if chance(0.2, rng) else 1.0,
        noise=draw_noise((1, 30), rng) if "noise" in causes else None,
        sharpening=draw_sharpening(150, rng) if chance(0.15, rng) else None,
        jpegs=draw_jpegs((20, 95), rng) if "jpeg" in causes else (),
    )


def draw_heavy(rng: Random) -> Damage:
    """Draw two rounds of almost all causes, as in pictures shared on the web.

    Source: Real-ESRGAN (arXiv:2107.10833), high-order degradation; the first round at twice the low-res size.
    """
    first = Damage(
        blur=draw_blur((0.4, 3.0), rng),
        shrunk=rng.uniform(1.1, 3.0) if chance(0.4, rng) else 1.0,
        noise=draw_noise((1, 40), rng),
        jpegs=(draw_jpeg((30, 95), rng),),
    )
    return Damage(
        before=first,
        blur=draw_blur((0.2, 1.0), rng) if chance(0.4, rng) else None,
        reduction=rng.choice(("bicubic", "bilinear", "area")),
        shrunk=rng.uniform(1.1, 2.0) if chance(0.3, rng) else 1.0,
        noise=draw_noise((1, 25), rng) if chance(0.7, rng) else None,
        sharpening=draw_sharpening(150, rng) if chance(0.3, rng) else None,
        jpegs=(draw_jpeg((30, 95), rng),),
    )


def draw_scan(rng: Random) -> Damage:
    """Draw the damage of a scanned print or film: grain and softness.

    Colours stay.
    """
    return Damage(
        blur=Blur(rng.uniform(0.3, 1.0)),
        noise=draw_noise((3, 22), rng, ("grain",)),
        sharpening=draw_sharpening(150, rng) if chance(0.3, rng) else None,
        jpegs=(draw_jpeg((60, 95), rng),) if chance(0.6, rng) else (),
        origin="scan",
    )


def draw_screenshot(rng: Random) -> Damage:
    """Draw the damage of a screenshot: none, few colours, or compression."""
    look = rng.choice(("clean", "colours", "jpeg", "jpeg"))
    return Damage(
        shrunk=rng.uniform(1.1, 2.0) if chance(0.3, rng) else 1.0,
        colours=rng.choice((32, 64, 128, 256)) if look == "colours" else 0,
        jpegs=draw_jpegs((30, 95), rng) if look == "jpeg" else (),
        origin="screenshot",
    )


def draw_web(rng: Random) -> Damage:
    """Draw the damage of a picture posted several times.

    Each time the picture may be resized, sharpened and compressed.
    """
    return Damage(
        before=Damage(jpegs=(draw_jpeg((40, 95), rng),)) if chance(0.5, rng) else None,
        reduction=rng.choice(("bicubic", "lanczos", "bilinear", "area")),
        shrunk=rng.uniform(1.1, 2.5) if chance(0.4, rng) else 1.0,
        sharpening=draw_sharpening(200, rng) if chance(0.5, rng) else None,
        jpegs=tuple(draw_jpeg((25, 90), rng) for _ in range(rng.randint(1, 4))),
        origin="web",
    )


def draw_phone(rng: Random) -> Damage:
    """Draw the damage of a small camera: smoothed noise, sharpening, JPEG."""
    return Damage(
        blur=Blur(rng.uniform(0.3, 0.8)) if chance(0.4, rng) else None,
        noise=draw_noise((2, 20), rng, ("camera",)),
        sharpening=draw_sharpening(150, rng) if chance(0.6, rng) else None,
        jpegs=(draw_jpeg((60, 96), rng),),
        origin="phone",
    )


MIXTURES: tuple[tuple[Callable[[Random], Damage], int], ...] = (  # each with its share
    (draw_several, 50),
    (draw_scan, 12),
    (draw_screenshot, 8),
    (draw_web, 18),
    (draw_phone, 12),
)


def draw_damage(config: RestorationConfig, rng: Random) -> Damage:
    """Draw the damage of a sample, its mention in the caption, and what to keep.

    Single causes and mixtures are equally frequent. Only a caption with the damage in words can ask to keep any damage.
    """
    is_said = chance(config.words, rng)
    if chance(config.clean, rng):
        return Damage(is_said=is_said)
    if chance(0.5, rng):
        damage = draw_single(rng)
    elif chance(config.heavy, rng):
        damage = draw_heavy(rng)
    else:
        functions, shares = zip(*MIXTURES, strict=True)
        damage = rng.choices(functions, shares)[0](rng)
    return replace(damage, is_said=is_said, keep=draw_keep(damage, config, rng) if is_said else "nothing")


def draw_keep(damage: Damage, config: RestorationConfig, rng: Random) -> Keep:
    """Draw the part of a stated damage to keep: all, its grain, or nothing."""
    if chance(config.contrary, rng):
        return "all"
    return "grain" if damage.noise and chance(config.keep_grain, rng) else "nothing"
