"""Names lead to models, and wrong names to one clear line."""

from pathlib import Path

import pytest
import torch

from gigasr.config.model import Config
from gigasr.models.checkpoint import CheckpointError, save_weights
from gigasr.models.zoo import DEFAULT_MODEL, bundled_models, find_model, load_model, load_upsampler, model_scale


def test_the_default_model_ships_with_the_package() -> None:
    assert DEFAULT_MODEL in bundled_models()
    network = load_upsampler()
    assert network.scale == 8
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_file_is_loaded_by_its_path(tiny_weights: Path, tiny_config: Config) -> None:
    assert load_upsampler(str(tiny_weights)).config == tiny_config.upsampler


def test_the_scale_is_known_without_the_network(tiny_weights: Path) -> None:
    assert model_scale(DEFAULT_MODEL) == load_model().scale
    assert model_scale(str(tiny_weights)) == load_model(str(tiny_weights)).scale


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="expected a file, a folder, .*upsampler_lite.*, got 'nonsense'"):
        load_upsampler("nonsense")


def test_an_empty_name_is_not_the_folder_one_is_in(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_weights.parent)
    assert find_model(".").is_file()
    with pytest.raises(ValueError, match="model: expected a file, a folder, .* got ''"):
        find_model("")


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path: Path, tiny_config: Config) -> None:
    path = tmp_path / "bad.safetensors"
    config = tiny_config.upsampler.model_dump(mode="json")
    save_weights(path, {"stem.weight": torch.zeros(1)}, "upsampler", config, torch.float32)
    with pytest.raises(CheckpointError, match="expected weights that fit its config"):
        load_upsampler(str(path))
