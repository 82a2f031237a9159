"""Low-res images are spoilt as the drawn damage says, where they were, and targets keep what the words want kept."""

import io
import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from gigasr.config.training import DegradationConfig, RestorationConfig
from gigasr.data.damage import Blur, Damage, Jpeg, Noise, Sharpening, draw_damage
from gigasr.data.restoration import Pixels, Spoilt, add_noise, blur_optically, compress, correlate, spoil

DRAWS = [draw_damage(RestorationConfig(), Random(f"draw/{i}")) for i in range(6000)]
NOISES = [Noise(12, "white"), Noise(12, "gray"), Noise(12, "shot"), Noise(9, "camera", 0.8), Noise(9, "grain", 0.5)]
CAUSES = {
    "gaussian": Damage(blur=Blur(1.2)),
    "defocus": Damage(blur=Blur(1.2, "defocus")),
    "motion": Damage(blur=Blur(1.2, "motion", 0.7)),
    "area": Damage(blur=Blur(0.4), reduction="area"),
    "bilinear": Damage(blur=Blur(0.4), reduction="bilinear"),
    "lanczos": Damage(blur=Blur(0.4), reduction="lanczos"),
    "shrunk": Damage(shrunk=2.3),
    "sharpening": Damage(sharpening=Sharpening(1.0, 150)),
    "jpeg": Damage(jpegs=(Jpeg(50), Jpeg(60, 0, (3, 5)))),
    "shifted jpeg": Damage(jpegs=(Jpeg(70, 2, (11, 6)), Jpeg(70, 1, (1, 15)))),
    "colours": Damage(colours=256),
    "before": Damage(before=Damage(blur=Blur(2.0), shrunk=1.5, jpegs=(Jpeg(70, 2, (3, 7)),)), reduction="area"),
}
each_cause = pytest.mark.parametrize("damage", CAUSES.values(), ids=CAUSES)
each_noise = pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.kind)


def photo(side: int, seed: int = 0) -> Pixels:
    """A picture of middle tones with detail of all sizes."""
    generator = np.random.default_rng(seed)
    layers = []
    for size in (4, 16, side):
        small = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
        layers.append(np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC), np.float64))
    return (64 + np.mean(layers, axis=0) / 2).round().astype(np.uint8)


def flat(side: int, level: int = 128) -> Image.Image:
    return Image.new("RGB", (side, side), (level, level, level))


def reduced(hr: Pixels, scale: int) -> Pixels:
    size = (hr.shape[1] // scale, hr.shape[0] // scale)
    return np.asarray(Image.fromarray(hr).resize(size, Image.Resampling.BICUBIC))


def spoilt(hr: Pixels, damage: Damage, scale: int = 4, seed: int = 0) -> Spoilt:
    return spoil(hr, scale, damage, Random(seed))


def bell(x: float, y: float, sigma: float, side: int) -> NDArray[np.float64]:
    """A bright bell on gray [side, side], its centre and sigma in px."""
    rows, columns = np.mgrid[:side, :side] + 0.5
    return 80 + 140 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))


def as_picture(gray: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.repeat(gray.round().astype(np.uint8)[..., None], 3, axis=2))


def shift(moved: Pixels, still: Pixels) -> NDArray[np.float64]:
    """By how much a picture lies right of and below another [2], px, as least squares of the gradient say."""
    a, b = (x.astype(np.float64).mean(axis=2) for x in (moved, still))
    gradient_y, gradient_x = np.gradient(b)
    slopes = np.stack([-gradient_x.ravel(), -gradient_y.ravel()], axis=1)
    return np.linalg.lstsq(slopes, (a - b).ravel(), rcond=None)[0]


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_without_damage_input_and_target_are_pillows_bicubic(scale: int) -> None:
    hr = photo(64)
    for damage in (Damage(), Damage(is_said=True, origin="screenshot")):
        lr, target, has_truth = spoilt(hr, damage, scale)
        assert np.array_equal(lr, reduced(hr, scale)) and np.array_equal(target, lr) and has_truth


@each_cause
def test_the_target_is_pillows_bicubic_and_the_input_differs(damage: Damage) -> None:
    hr = photo(128)
    lr, target, has_truth = spoilt(hr, damage)
    assert np.array_equal(target, reduced(hr, 4)) and has_truth
    assert lr.dtype == np.uint8 and lr.shape == target.shape and not np.array_equal(lr, target)


def test_jpeg_is_what_saving_and_reading_a_file_gives() -> None:
    hr = photo(256)
    for quality in (60, 30):
        buffer = io.BytesIO()
        Image.fromarray(reduced(hr, 4)).save(buffer, "JPEG", quality=quality)
        assert np.array_equal(spoilt(hr, Damage(jpegs=(Jpeg(quality),))).lr, np.asarray(Image.open(buffer)))


def test_gaussian_blur_acts_before_the_reduction_in_low_res_pixels() -> None:
    hr = photo(256)
    blurred = Image.fromarray(hr).filter(ImageFilter.GaussianBlur(1.0 * 4))
    assert np.array_equal(spoilt(hr, Damage(blur=Blur(1.0))).lr, reduced(np.asarray(blurred), 4))


def test_a_shifted_grid_compresses_the_blocks_that_a_crop_would_have() -> None:
    picture = Image.fromarray(photo(64))
    for left, top in ((3, 5), (0, 2), (7, 7)):
        x, y = (8 - left) % 8, (8 - top) % 8  # where the first whole block begins
        shifted = np.asarray(compress(picture, Jpeg(20, 0, (left, top))))[y:, x:]
        cropped = np.asarray(compress(picture.crop((x, y, 64, 64)), Jpeg(20, 0)))
        assert np.array_equal(shifted, cropped)


def test_chroma_subsampling_blurs_colours_alone() -> None:
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (200, 60, 60), (60, 122, 200)  # luma of 102 in both
    contrast = {}
    for subsampling in (0, 2):
        decoded = np.asarray(compress(Image.fromarray(stripes), Jpeg(95, subsampling)), np.float64)
        contrast[subsampling] = abs(decoded[:, ::2] - decoded[:, 1::2]).mean(axis=(0, 1))
    assert (contrast[0][[0, 2]] > 100).all() and (contrast[2] < 40).all()


def test_a_shift_is_measured_as_it_is() -> None:
    still, moved = (np.asarray(as_picture(bell(x, y, 6, 64))) for x, y in ((32, 30), (32.4, 29.7)))
    assert np.allclose(shift(moved, still), (0.4, -0.3), atol=0.02)


@each_cause
def test_nothing_moves(damage: Damage) -> None:
    lr, target, _ = spoilt(photo(512), damage)
    assert np.allclose(shift(lr, target), 0, atol=0.05)


def test_drawn_damages_move_nothing_on_the_average() -> None:
    photos = [photo(256, seed) for seed in range(24)]  # of one alone, what its edges cut off counts as a shift
    spoilts = [spoilt(photos[i % 24], damage, seed=i) for i, damage in enumerate(DRAWS[:1200])]
    shifts = [shift(lr, target) for lr, target, has_truth in spoilts if has_truth]
    assert np.allclose(np.mean(shifts, axis=0), 0, atol=0.015)


def mean_of_copies(offsets: list[tuple[float, float]]) -> NDArray[np.float64]:
    """The bell as a moving or defocused camera sees it: the mean of its copies."""
    return np.mean([bell(40 + x, 40 + y, 3, 80) for x, y in offsets], axis=0)


@pytest.mark.parametrize("angle", [0.0, 0.5, math.pi / 2, 2.2])
def test_motion_is_the_mean_of_copies_along_a_path(angle: float) -> None:
    length = 2.0 * math.sqrt(12)  # of a path whose std is 2 px
    steps = (np.arange(200) + 0.5) / 200 * length - length / 2
    expected = mean_of_copies([(t * math.cos(angle), t * math.sin(angle)) for t in steps])
    blurred = blur_optically(as_picture(bell(40, 40, 3, 80)), Blur(2.0, "motion", angle))
    assert abs(np.asarray(blurred, np.float64)[..., 0] - expected).max() <= 1


def test_defocus_is_the_mean_of_copies_over_a_disc() -> None:
    radii, turns = 3.0 * np.sqrt((np.arange(20) + 0.5) / 20), 2 * math.pi * np.arange(40) / 40  # std 1.5 px
    expected = mean_of_copies([(r * math.cos(t), r * math.sin(t)) for r in radii for t in turns])
    blurred = blur_optically(as_picture(bell(40, 40, 3, 80)), Blur(1.5, "defocus"))
    assert abs(np.asarray(blurred, np.float64)[..., 0] - expected).max() <= 1


def test_optical_blur_leaves_a_flat_picture_alone() -> None:
    for blur in (Blur(2.0, "defocus"), Blur(2.0, "motion", 0.3)):
        assert np.array_equal(np.asarray(blur_optically(flat(24), blur)), np.asarray(flat(24)))


@each_noise
def test_noise_has_its_std_and_no_mean_at_middle_gray(noise: Noise) -> None:
    field = np.asarray(add_noise(flat(512), noise, 5), np.float64) - 128
    assert np.allclose(field.std(axis=(0, 1)), noise.std, rtol=0.03)
    assert np.allclose(field.mean(axis=(0, 1)), 0, atol=0.25)


@each_noise
def test_noise_is_as_coloured_as_its_kind(noise: Noise) -> None:
    field = np.asarray(add_noise(flat(256), noise, 5), np.float64) - 128
    red_green = np.corrcoef(field[..., 0].ravel(), field[..., 1].ravel())[0, 1]
    expected = {"white": 0.0, "shot": 0.0, "camera": 0.5, "gray": 1.0, "grain": 1.0}[noise.kind]
    assert red_green == pytest.approx(expected, abs=0.03)


def test_light_makes_a_cameras_noise_and_grain_shows_in_middle_tones() -> None:
    def std(kind: Noise, level: int) -> float:
        return float((np.asarray(add_noise(flat(128, level), kind, 5), np.float64)).std())

    for noise in (Noise(6, "shot"), Noise(6, "camera", 0.5)):
        assert std(noise, 40) < std(noise, 128) < std(noise, 220)
    assert std(Noise(6, "shot"), 32) == pytest.approx(3, rel=0.05)  # a quarter of the light, half of the noise
    grain = Noise(6, "grain", 0.5)
    assert std(grain, 40) < 0.95 * std(grain, 128) > std(grain, 220)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_coarse_noise_is_as_alike_as_a_filtered_field(sigma: float) -> None:
    """White noise under a Gaussian of sigma is correlated by exp(-(d / 2 sigma)^2)."""
    field = correlate(np.random.default_rng(0).standard_normal((512, 511, 1)), sigma)[..., 0]
    assert field.std() == pytest.approx(1, abs=0.03)
    for distance in (1, 2, 3):
        expected = math.exp(-((distance / (2 * sigma)) ** 2))
        for axis in (0, 1):
            found = (field * np.roll(field, distance, axis)).mean() / field.var()
            assert found == pytest.approx(expected, abs=0.04)


@each_noise
def test_kept_grain_is_in_the_target_and_nothing_else_is(noise: Noise) -> None:
    hr = photo(256)
    others = Damage(blur=Blur(0.8), jpegs=(Jpeg(40),), noise=noise, is_said=True, keep="grain")
    _, target, has_truth = spoilt(hr, others)
    alone = spoilt(hr, Damage(noise=noise, is_said=True, keep="grain"))
    assert np.array_equal(target, alone.target) and np.array_equal(alone.lr, alone.target)
    assert not has_truth and not np.array_equal(target, reduced(hr, 4))


@each_cause
def test_words_that_want_all_kept_make_the_input_the_target(damage: Damage) -> None:
    hr = photo(128)
    lr, target, has_truth = spoilt(hr, replace(damage, keep="all", is_said=True))
    assert np.array_equal(lr, target) and not has_truth
    assert np.array_equal(lr, spoilt(hr, damage).lr)


def test_damage_never_changes_mean_colours() -> None:
    """But by what a mean of 4,096 pixels of noise is off, and JPEG's rounding of few blocks; never to one side."""
    hr = photo(256)
    clean = reduced(hr, 4).astype(np.float64).mean(axis=(0, 1))
    drifts = []
    for number, damage in enumerate(DRAWS[:1200]):
        drift = spoilt(hr, damage, seed=number).lr.astype(np.float64).mean(axis=(0, 1)) - clean
        assert abs(drift).max() < 2 + 0.2 * sum(d.noise.std for d in (damage, damage.before) if d and d.noise), damage
        drifts.append(drift)
    assert abs(np.mean(drifts, axis=0)).max() < 0.15


def test_a_first_round_acts_at_twice_the_size() -> None:
    hr = photo(256)
    once, before = Damage(blur=Blur(1.0)), Damage(before=Damage(blur=Blur(2.0)))
    difference = spoilt(hr, once).lr.astype(np.float64) - spoilt(hr, before).lr
    assert abs(difference).mean() < 1


def test_the_same_source_gives_the_same_and_another_gives_other_pixels() -> None:
    hr = photo(64)
    for damage in [damage for damage in DRAWS[:300] if damage.noise]:
        first, second, other = spoilt(hr, damage), spoilt(hr, damage), spoilt(hr, damage, seed=1)
        assert np.array_equal(first.lr, second.lr) and np.array_equal(first.target, second.target)
        assert not np.array_equal(first.lr, other.lr)
    assert [draw_damage(RestorationConfig(), Random(f"draw/{i}")) for i in range(100)] == DRAWS[:100]


def share(damages: list[Damage]) -> float:
    return len(damages) / len(DRAWS)


def num_causes(damage: Damage) -> int:
    """How many kinds of damage were done; two rounds count as several."""
    parts = (damage.blur, damage.noise, damage.sharpening, damage.jpegs, damage.colours, damage.shrunk > 1)
    return sum(bool(part) for part in parts) + 2 * bool(damage.before)


def test_single_causes_are_as_frequent_as_mixtures_and_a_quarter_is_clean() -> None:
    named = [damage for damage in DRAWS if damage.origin]  # some of which have one cause, or none
    plain = [damage for damage in DRAWS if not damage.origin]
    assert share([d for d in plain if d.is_clean]) == pytest.approx(0.25, abs=0.02)
    single, several = ([d for d in plain if test(num_causes(d))] for test in ((1).__eq__, (1).__lt__))
    assert share(single) == pytest.approx(0.375, abs=0.02)
    assert share(several) + share(named) == pytest.approx(0.375, abs=0.02)
    assert share([d for d in plain if d.before]) == pytest.approx(0.375 * 0.25, abs=0.015)


def test_single_causes_reach_from_hardly_visible_to_strong() -> None:
    plain = [d for d in DRAWS if not d.origin and num_causes(d) == 1]
    stds = [d.noise.std for d in plain if d.noise and d.noise.kind in ("white", "gray")]
    qualities = [jpeg.quality for d in plain for jpeg in d.jpegs]
    sigmas = [d.blur.sigma for d in plain if d.blur]
    for values, (low, high), kinds in (
        (stds, (1, 40), (10, 25)),
        (qualities, (15, 95), (30, 60)),
        (sigmas, (0.3, 2), (1.0,)),
    ):
        margin = 0.05 * (high - low)
        assert low <= min(values) < low + margin and high - margin < max(values) <= high
        for kind in kinds:  # of the fixed set by which restoration is judged
            assert sum(abs(value - kind) < margin for value in values) > 0.05 * len(values)


def test_pictures_are_compressed_in_all_ways_that_people_do() -> None:
    jpegs = [jpeg for damage in DRAWS for jpeg in damage.jpegs]
    assert {jpeg.subsampling for jpeg in jpegs} == {0, 1, 2}
    assert 0.4 < sum(jpeg.offset == (0, 0) for jpeg in jpegs) / len(jpegs) < 0.6
    assert {1, 2, 3, 4} <= {len(damage.jpegs) for damage in DRAWS}
    assert {damage.origin for damage in DRAWS} == {"", "scan", "screenshot", "web", "phone"}


def test_only_words_ask_to_keep_anything() -> None:
    assert all(damage.keep == "nothing" for damage in DRAWS if not damage.is_said)
    said = [d for d in DRAWS if d.is_said and (d.origin or not d.is_clean)]
    contrary = [d for d in said if d.keep == "all"]
    assert len(contrary) / len(said) == pytest.approx(0.2, abs=0.03)
    noisy = [d for d in said if d.noise and d.keep != "all"]
    assert sum(d.keep == "grain" for d in noisy) / len(noisy) == pytest.approx(0.2, abs=0.04)
    assert all(d.noise for d in DRAWS if d.keep == "grain")


def test_restoration_stands_alone_in_a_config() -> None:
    assert DegradationConfig(restoration=RestorationConfig(words=0.3)).restoration.words == 0.3
    for other in ({"mild": 0.1}, {"real_esrgan": 0.1}, {"noise": 0.1}):
        with pytest.raises(ValueError, match="restoration: expected mild, real_esrgan and noise of 0"):
            DegradationConfig(restoration=RestorationConfig(), **other)
