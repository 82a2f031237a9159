"""The vocabulary of a picture's state: several phrasings of each meaning.

The last phrasings of each meaning are kept from training.
"""

from typing import NamedTuple


class Phrases(NamedTuple):
    """Ways to say one thing."""

    trained: tuple[str, ...]
    held_out: tuple[str, ...]  # never in a training caption: they test for the meaning, not the wording


def split(trained: str, held_out: str) -> Phrases:
    """Split both texts into phrasings at the semicolons."""
    return Phrases(tuple(trained.split("; ")), tuple(held_out.split("; ")))


NOISE = {
    "noise": split(
        "noisy; noise; image noise; a noisy photo; noisy picture; noisy image; full of noise; random noise; speckled; "
        "denoise; remove the noise; noisy, grainy",
        "riddled with static; take the noise out; speckles everywhere",
    ),
    "noise, light": split(
        "slightly noisy; light noise; a little noise; faint noise; mild noise; a bit noisy; subtle noise; a bit grainy",
        "just a touch of noise; weakly noisy",
    ),
    "noise, medium": split(
        "moderate noise; visible noise; quite noisy; rather noisy; clearly noisy; medium noise",
        "fairly noisy; noticeable noise",
    ),
    "noise, strong": split(
        "very noisy; strong noise; heavy noise; extremely noisy; lots of noise; severe noise; terribly noisy; "
        "high noise; very grainy",
        "drowning in noise; awfully noisy; intense noise",
    ),
    "colour noise": split(
        "colour noise; color noise; coloured speckles; chroma noise; colored noise; rgb noise; coloured dots",
        "rainbow speckles; multicoloured noise",
    ),
    "grain": split(
        "grainy; grain; film grain; a grainy photo; grainy picture; visible grain; coarse grain; analogue grain; "
        "grainy texture; remove the grain",
        "gritty; sandy texture; grain all over",
    ),
    "camera noise": split(
        "camera noise; sensor noise; high iso; iso noise; taken in low light; low light noise; shot in the dark; "
        "phone camera noise; noisy night shot; digital noise",
        "iso 6400; noise of a small sensor; dim light, noisy",
    ),
}

JPEG = {
    "jpeg": split(
        "jpeg artifacts; jpeg; jpeg compression; compressed; compression artifacts; jpeg artefacts; jpg artifacts; "
        "blocky; block artifacts; jpeg blocks; mosquito noise; low quality jpeg; remove jpeg artifacts",
        "blocking; a lossy jpg file; macroblocks; squeezed file",
    ),
    "jpeg, light": split(
        "slight jpeg artifacts; light jpeg compression; mild compression; slightly compressed; faint jpeg artifacts; "
        "light jpeg artifacts",
        "barely compressed; minor jpeg damage",
    ),
    "jpeg, medium": split(
        "moderate jpeg compression; visible jpeg artifacts; medium quality jpeg; clearly compressed; quite compressed; "
        "noticeable jpeg blocks",
        "fairly compressed; average quality jpg",
    ),
    "jpeg, strong": split(
        "strong jpeg artifacts; heavily compressed; heavy compression; very blocky; extreme jpeg compression; "
        "badly compressed; low bitrate jpeg",
        "crushed by compression; terribly blocky; compressed to death",
    ),
    "jpeg, again": split(
        "saved many times; reposted; shared again and again; re-compressed jpeg; saved as jpeg several times; "
        "forwarded by messenger; compressed twice",
        "recompressed over and over; passed around",
    ),
    "colour bleeding": split(
        "colour bleeding; color bleeding; smeared colours; bleeding colours; blocky colours; chroma subsampling",
        "colours run into each other; leaking colours",
    ),
}

BLUR = {
    "blur": split(
        "blurry; blurred; blur; soft; unsharp; not sharp; a blurry photo; blurry picture; lacks sharpness; fuzzy; "
        "deblur; sharpen it",
        "smudged; hazy detail; lacking crispness",
    ),
    "blur, light": split(
        "slightly blurry; slightly soft; a bit blurry; a little soft; mild blur; light blur; slight blur",
        "a touch soft; barely blurred",
    ),
    "blur, strong": split(
        "very blurry; strong blur; extremely blurry; heavily blurred; heavy blur; very soft; badly blurred",
        "awfully blurry; a complete blur",
    ),
    "defocus": split(
        "out of focus; defocused; missed focus; lens blur; bad focus; focus blur; unfocused",
        "the focus is off; poorly focused",
    ),
    "motion": split(
        "motion blur; camera shake; shaky; shaken; motion blurred; blurred by movement; moving camera",
        "handshake blur; smeared by motion",
    ),
    "shrunk": split(
        "upscaled; enlarged; low resolution; resized; enlarged from a smaller picture; blown up; enlarged thumbnail; "
        "interpolated; low res",
        "scaled up; few pixels, stretched",
    ),
}

OTHER = {
    "sharpening": split(
        "oversharpened; over-sharpened; too much sharpening; halos; sharpening halos; halos around edges; edge halos; "
        "ringing; harsh sharpening",
        "sharpened too far; glowing edges",
    ),
    "colours": split(
        "few colours; reduced palette; gif; posterized; 256 colours; limited palette; indexed colours; color banding; "
        "dithered",
        "a small palette; quantized colours",
    ),
    "bad": split(
        "low quality; bad quality; degraded; damaged; poor quality; restore; restore it; needs restoration; bad photo; "
        "in poor condition; several defects; improve the quality",
        "in bad shape; please repair; spoilt",
    ),
    "scan": split(
        "old photo; scanned photo; scan; scan of a print; old photograph; vintage photo; scanned film; "
        "photo from an album; analogue photo",
        "grandmother's picture; print from a flatbed; snapshot of the seventies",
    ),
    "screenshot": split(
        "screenshot; screen capture; a screenshot; captured from a screen; screen shot; screenshot of a phone",
        "screen grab; print screen",
    ),
    "web": split(
        "downloaded from the web; from social media; web image; from the internet; internet picture; "
        "from a website; messenger picture",
        "found online; copied off a page",
    ),
    "phone": split(
        "phone photo; mobile phone picture; snapshot by phone; cheap camera; smartphone photo; a picture from my phone",
        "cellphone pic; compact camera shot",
    ),
}

LEFT_ALONE = {
    "clean": split(
        "clean; clean, sharp; clean image; high quality; pristine; no noise; noise-free; flawless; perfect quality; "
        "clean and crisp; undamaged; good quality; without artifacts; nothing wrong; clean photo",
        "spotless; impeccable; free of noise; artifact-free",
    ),
    "sharp": split(
        "sharp; in focus; crisp; sharp details; tack sharp; high detail; detailed; perfectly sharp",
        "razor sharp; needle-sharp; crystal clear",
    ),
    "untouched": split(
        "keep as it is; keep it as it is; leave it alone; leave untouched; do not change; unchanged; do not restore; "
        "no restoration; keep everything; as it is; stay faithful",
        "hands off; preserve it exactly; do not alter",
    ),
    "grain kept": split(
        "keep the grain; keep the film grain; film grain to keep; keep grain; leave the grain; preserve the grain; "
        "grain is intended; keep the noise; do not denoise; grain on purpose; leave the noise in",
        "retain the grain; the grain stays; spare the grain",
    ),
}

PHRASES = NOISE | JPEG | BLUR | OTHER | LEFT_ALONE
