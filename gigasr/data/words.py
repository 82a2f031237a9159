"""Words for a picture's state: damage, or the wish to leave the picture alone."""

from random import Random

from gigasr.data.damage import LARGER, Blur, Damage, Jpeg, Noise, chance
from gigasr.data.phrases import PHRASES

Causes = dict[str, tuple[str, ...]]  # cause -> interchangeable meanings that state it

MIN_STD = 1.0  # 8-bit levels; weaker noise is not mentioned
MIN_SIGMA = 0.25  # px; weaker blur is not mentioned
MIN_SHRUNK = 1.1
MAX_HALVED_QUALITY = 60  # JPEG quality; compression above it is hardly visible after a reduction
EVERY_COLOUR = 128  # size of a palette; the loss is hardly visible in larger palettes
PARTIAL = 0.3  # share of captions that leave out some of several causes
WHOLESALE = 0.1  # share of captions that only call the picture bad
ORIGIN = 0.5  # share of captions that name the origin, if there is one
TWICE = 0.15  # share of causes said in two ways


def degrees(value: float, min_medium: float, min_strong: float, margin: float) -> tuple[str, ...]:
    """Return the words for the degree of a value; near a border, two words.

    The border between two degrees is a matter of taste, so both words count within the margin.
    """
    names = []
    if value < min_medium + margin:
        names.append("light")
    if min_medium - margin <= value < min_strong + margin:
        names.append("medium")
    if value >= min_strong - margin:
        names.append("strong")
    return tuple(names)


def noise_meanings(noise: Noise) -> tuple[str, ...]:
    """Return the meanings of noise; the plain word counts twice."""
    own = {"white": "colour noise", "gray": "grain", "grain": "grain", "camera": "camera noise", "shot": "camera noise"}
    return ("noise", "noise", own[noise.kind], *(f"noise, {d}" for d in degrees(noise.std, 8, 18, 2)))


def jpeg_meanings(jpegs: tuple[Jpeg, ...]) -> tuple[str, ...]:
    """Return the meanings of JPEG damage; the worst round gives the degree."""
    worst = min(jpegs, key=lambda jpeg: jpeg.quality)
    meanings = ["jpeg", "jpeg", *(f"jpeg, {d}" for d in degrees(100 - worst.quality, 28, 60, 6))]
    if len(jpegs) > 1:
        meanings.append("jpeg, again")
    if worst.subsampling and worst.quality < 40:
        meanings.append("colour bleeding")
    return tuple(meanings)


def blur_meanings(blur: Blur) -> tuple[str, ...]:
    """Return the meanings of blur; the name of its kind counts twice."""
    own = {"gaussian": "blur", "defocus": "defocus", "motion": "motion"}[blur.kind]
    names = [f"blur, {d}" for d in degrees(blur.sigma, 0.7, 1.2, 0.1) if d != "medium"]
    return ("blur", own, own, *names)


def halved(damage: Damage) -> Damage:
    """Return the part of a damage still visible after a reduction by LARGER."""
    noise, blur = damage.noise, damage.blur
    return Damage(
        noise=Noise(noise.std / LARGER, noise.kind) if noise else None,
        blur=Blur(blur.sigma / LARGER, blur.kind) if blur else None,
        shrunk=damage.shrunk / LARGER,
        jpegs=tuple(
            Jpeg(min(100, jpeg.quality + 20), 0) for jpeg in damage.jpegs if jpeg.quality <= MAX_HALVED_QUALITY
        ),
    )


def causes(damage: Damage) -> Causes:
    """Find the visible damage of a picture, by cause."""
    found: Causes = causes(halved(damage.before)) if damage.before else {}
    if damage.noise and damage.noise.std >= MIN_STD:
        found["noise"] = noise_meanings(damage.noise)
    if damage.jpegs:
        found["jpeg"] = jpeg_meanings(damage.jpegs)
    if damage.blur and damage.blur.sigma >= MIN_SIGMA:
        found["blur"] = blur_meanings(damage.blur)
    if damage.shrunk > MIN_SHRUNK:
        found["shrunk"] = ("shrunk", "shrunk", "blur")
    if damage.sharpening:
        found["sharpening"] = ("sharpening",)
    if 0 < damage.colours <= EVERY_COLOUR:
        found["colours"] = ("colours",)
    return found


def phrase(meanings: tuple[str, ...], rng: Random, held_out: bool) -> str:
    """Pick a phrasing of any of the meanings."""
    phrases = PHRASES[rng.choice(meanings)]
    return rng.choice(phrases.held_out if held_out else phrases.trained)


def say_left_alone(rng: Random, held_out: bool) -> list[str]:
    """Say that a picture is clean, or should stay unchanged."""
    said = [phrase(("clean", "clean", "untouched"), rng, held_out)]
    return [*said, phrase(("sharp",), rng, held_out)] if chance(0.3, rng) else said


def say_damage(damage: Damage, rng: Random, held_out: bool) -> list[str]:
    """Say the damage, or a part of the damage, the origin, or only "bad".

    Phrases come in random order.
    """
    found = [meanings for cause, meanings in causes(damage).items() if damage.keep != "grain" or cause != "noise"]
    if len(found) > 1 and chance(PARTIAL, rng):
        found = rng.sample(found, rng.randint(1, len(found) - 1))
    said = [phrase(meanings, rng, held_out) for meanings in found]
    said += [phrase(meanings, rng, held_out) for meanings in found if chance(TWICE, rng)]
    if said and damage.keep == "nothing" and chance(WHOLESALE, rng):
        said = [phrase(("bad",), rng, held_out)]
    if damage.origin and (not said or chance(ORIGIN, rng)):
        origin = phrase((damage.origin,), rng, held_out)
        said = [origin] if chance(0.5, rng) else [*said, origin]
    rng.shuffle(said)
    return said


def describe_damage(damage: Damage, rng: Random, held_out: bool = False) -> str:
    """Say a picture's state in random phrasing and order.

    Without visible damage or an origin, or with all damage to be kept, the words call the picture clean or ask to leave
    it alone. Causes may be left unsaid, never invented. The text does not depend on damage.is_said.

    held_out: use only phrasings that no training caption has
    """
    if damage.keep == "all" or (not damage.origin and not causes(damage)):
        said = say_left_alone(rng, held_out)
    else:
        said = say_damage(damage, rng, held_out)
        if damage.keep == "grain":
            said.insert(rng.randint(0, len(said)), phrase(("grain kept",), rng, held_out))
    return ", ".join(dict.fromkeys(said))


def compose(content_caption: str, damage: Damage, rng: Random, held_out: bool = False, content: float = 0.5) -> str:
    """Make a sample's caption: the content, then the state; either may be missing.

    content: share of the samples that show the content's caption
    """
    parts = [content_caption] if content_caption and chance(content, rng) else []
    if damage.is_said:
        parts.append(describe_damage(damage, rng, held_out))
    return rng.choice((", ", ", ", ". ", "; ")).join(parts)
