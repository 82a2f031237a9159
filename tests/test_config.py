"""Configs are strict, frozen and complete."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from gigasr.config.model import Config, load_config
from gigasr.config.networks import UpsamplerConfig
from gigasr.config.strict import parse

TINY = Path(__file__).parents[1] / "configs" / "upsampler_tiny.toml"


def test_an_unknown_key_is_named_with_its_path_and_the_nearest_known() -> None:
    with pytest.raises(ValueError, match=r"upsampler\.windows: unknown key; nearest known: window"):
        load_config(TINY, ("upsampler.windows=3",))


def test_an_unknown_key_inside_a_list_is_named() -> None:
    with pytest.raises(ValueError, match=r"train\.phases\.0\.loss\.lpip: unknown key; nearest known: lpips"):
        load_config(TINY, ("train.phases.0.loss.lpip=3",))


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("train.data.num_worker", "num_workers"),
        ("train.data.min_score", "min_scores"),
        ("train.degradation.milds", "mild"),
        ("train.degradation.realesrgan", "real_esrgan"),
        ("train.clip.towers", "tower"),
        ("train.vision.text.deep", "depth"),
    ],
)
def test_an_unknown_key_in_a_nested_table_is_named_with_the_nearest_known(path: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=rf"{re.escape(path)}: unknown key; nearest known: {nearest}$"):
        load_config(TINY, (f"{path}=1",))


def test_a_wrong_type_is_named_with_its_value() -> None:
    with pytest.raises(ValueError, match=r"upsampler\.w_dim: .*got 'wide'"):
        load_config(TINY, ("upsampler.w_dim=wide",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 6}, "scale: expected a power of two, got 6"),
        ({"levels": [{"channels": 8, "blocks": 1}] * 4}, "levels: expected at least 5 for scale 8, got 4"),
        ({"levels": [{"channels": 8, "blocks": 1, "attention": 1}] * 6}, "expected attention = 0 above"),
        ({"head_dim": 5}, "expected channels divisible by head_dim 5, got 16"),
    ],
)
def test_settings_that_cannot_work_together_are_refused(change: dict[str, object], message: str) -> None:
    values = load_config(TINY).upsampler.model_dump() | change
    with pytest.raises(ValueError, match=message):
        parse(UpsamplerConfig, values, "test")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("upsampler.head_dim=5", "levels: expected channels divisible by head_dim 5, got 16$"),
        (
            "discriminator.num_levels=4",
            "discriminator.num_levels: expected at most the 3 that the generator makes, got 4",
        ),
        ("train.phases.0.crop=60", r"train\.phases\.crop: expected a multiple of 32 px, got 60"),
        (
            "discriminator.stages=[" + 7 * "{channels=8}," + "]",
            r"train\.phases\.crop: expected a multiple of 128 px for the discriminator's stages, got 64",
        ),
        ("discriminator.flatten=6", r"train\.phases\.crop: expected 48 px for the discriminator's stages, got 64"),
        ("train.phases=[]", r"train\.phases: expected at least one, got none"),
        ("discriminator.stages=[]", r"discriminator\.stages: expected at least one, got none"),
        ("train.phases.0.betas=[0.9, 1.0]", r"train\.phases\.0\.betas\.1: input should be less than 1, got 1\.0"),
        ("train.weight_decay=-1", r"train\.weight_decay: input should be greater than or equal to 0, got -1"),
        (
            "train.phases.0.loss={l1=0.0, lpips=0.0, adversarial=0.0}",
            r"train\.phases\.loss: expected a term for the generator, got none; give l1 a weight",
        ),
        (
            "discriminator.stages=[{channels=12, attention=1}]",
            r"discriminator\.stages: expected channels divisible by head_dim 8, got 12",
        ),
        (
            "train.phases.0={images=8, crop=32, batch_size=4, loss={spectrum=0.1}}",
            r"train\.phases\.crop: expected at least 64 px for loss\.spectrum, got 32",
        ),
        (
            "train.degradation={mild=0.8, real_esrgan=0.8}",
            "mild, real_esrgan: expected at most 1 together, got 0.8 and 0.8",
        ),
    ],
)
def test_training_that_would_fail_at_its_first_step_is_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"upsampler_tiny\.toml: {message}"):
        load_config(TINY, (override,))


def test_an_empty_split_means_all() -> None:
    assert load_config(TINY, ("train.data.split=",)).train.data.split is None


def test_a_config_is_frozen() -> None:
    config = load_config(TINY)
    with pytest.raises(ValidationError):
        config.upsampler.scale = 4  # type: ignore[misc]


def test_a_config_survives_a_round_trip_through_json() -> None:
    config = load_config(TINY)
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_networks_that_read_different_towers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"discriminator.text: expected the generator's tower"):
        load_config(TINY, ("discriminator.text.tower_width=5",))
