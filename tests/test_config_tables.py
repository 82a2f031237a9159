"""Overrides reach any place of a config's tables."""

from pathlib import Path

import pytest

from gigasr.config.model import load_config

TINY = Path(__file__).parents[1] / "configs" / "upsampler_tiny.toml"


def test_overrides_replace_values_at_any_depth() -> None:
    config = load_config(TINY, ("train.seed=7", "train.phases.1.loss.r1=0.5", 'upsampler.upsample="filter"'))
    assert (config.train.seed, config.train.phases[1].loss.r1, config.upsampler.upsample) == (7, 0.5, "filter")


def test_an_element_of_a_list_is_replaced_whole() -> None:
    config = load_config(TINY, ("train.phases.0={images=8, crop=64, batch_size=4}",))
    assert config.train.phases[0].images == 8


def test_an_override_without_a_value_says_what_is_expected() -> None:
    with pytest.raises(ValueError, match=r"--set: expected dotted\.key=value, got 'train\.seed'"):
        load_config(TINY, ("train.seed",))


def test_an_override_into_nothing_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match=r"--set: train\.phases\.9"):
        load_config(TINY, ("train.phases.9.crop=64",))


def test_an_override_beyond_a_value_is_told() -> None:
    with pytest.raises(ValueError, match=r"--set: train\.r1_every\.x: expected a key, got one that goes on after the "):
        load_config(TINY, ("train.r1_every.x=64",))


def test_a_syntax_error_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(ValueError, match=r"bad\.toml: expected TOML"):
        load_config(tmp_path / "bad.toml")
