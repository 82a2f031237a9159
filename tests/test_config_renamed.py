"""Configs and weights of version 0.1, whose keys have other names, load as those of today."""

import json
from pathlib import Path

import pytest
import torch

from gigasr.config.model import Config, load_config
from gigasr.config.networks import TextConfig, UpsamplerConfig
from gigasr.config.renamed import RENAMED_KEYS, rename_keys
from gigasr.config.strict import parse
from gigasr.config.training import DataConfig, DegradationConfig, PhaseConfig, TrainConfig
from gigasr.models.checkpoint import load_weights, save_weights
from gigasr.models.zoo import load_upsampler

TINY_0_1 = """
[upsampler]
lr_size = 8
z_dim = 8
w_dim = 16
mapping_layers = 2
upsample = "shuffle"
head_dim = 8
window = 4
input_noise = 0.01
levels = [
    { channels = 16, blocks = 1, num_kernels = 2, attention = 1 },  # 1/4
    { channels = 16, blocks = 2, num_kernels = 2 },                 # 1/2
    { channels = 8, blocks = 2 },                                   # 1x
    { channels = 8, blocks = 2, num_kernels = 2 },                  # 2x
    { channels = 8, blocks = 1, num_kernels = 2 },                  # 4x
    { channels = 8, blocks = 1, num_kernels = 4 },                  # 8x
]
text = { tower = "text_lite", pretrained = "", tower_width = 256, dim = 16, depth = 1, num_heads = 2 }

[discriminator]
stages = [{ channels = 8 }, { channels = 8 }, { channels = 8 }, { channels = 8, attention = 1 }]
out_channels = 8
num_levels = 3
sees_lr = true
minibatch_std = 2
head_dim = 8
text = { tower = "text_lite", pretrained = "", tower_width = 256, dim = 16, depth = 0, num_heads = 2 }

[train]
r1_every = 2
ema_half_life = 10
clip_norm = 1.0
data = { max_reduction = 2.0, workers = 0 }
degradation = { camera = 0.5 }
tracker = "none"
log_every = 1
sample_every = 4
save_every = 2
validate_every = 6

[[train.phases]]
images = 4
crop = 64
batch_size = 2
betas = [0.9, 0.99]
decay = true
loss = { l1 = 1.0, lpips = 0.1, adversarial = 0.0, matching = 0.0, r1 = 0.0 }

[[train.phases]]
images = 8
crop = 64
batch_size = 2
loss = { l1 = 1.0, lpips = 0.1, adversarial = 0.05, matching = 0.1, r1 = 0.2 }
"""  # configs/upsampler_tiny.toml of version 0.1


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def with_old_keys(table: object) -> object:
    """The same with the keys of version 0.1."""
    old = {present: key for key, present in RENAMED_KEYS.items()}
    if isinstance(table, list):
        return [with_old_keys(element) for element in table]
    return (
        {old.get(key, key): with_old_keys(value) for key, value in table.items()} if isinstance(table, dict) else table
    )


def test_a_config_of_version_0_1_means_what_it_meant(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "tiny.toml", TINY_0_1))
    assert config.discriminator.condition_on_lr
    assert config.train.max_grad_norm == 1.0
    assert (config.train.data.max_downscale, config.train.data.num_workers) == (2.0, 0)
    assert config.train.degradation.mild == 0.5
    assert [phase.learning_rate_decay for phase in config.train.phases] == [True, False]


def test_every_renamed_key_is_a_key_of_some_table() -> None:
    tables = (TrainConfig, PhaseConfig, DataConfig, DegradationConfig, TextConfig, UpsamplerConfig, Config)
    known = {key for table in tables for key in table.model_fields}
    known |= set(Config.model_fields["discriminator"].annotation.model_fields)  # type: ignore[union-attr]
    assert set(RENAMED_KEYS.values()) <= known and not RENAMED_KEYS.keys() & known


def test_old_keys_at_every_depth_give_the_same_config(tiny_config: Config) -> None:
    dumped = tiny_config.model_dump(mode="json")
    assert parse(Config, with_old_keys(dumped), "old") == tiny_config  # type: ignore[arg-type]
    assert rename_keys(with_old_keys(dumped)) == dumped


def test_weights_of_version_0_1_give_the_same_images(tiny_weights: Path, tmp_path: Path) -> None:
    state, config, _ = load_weights(tiny_weights, "upsampler")
    old = with_old_keys(config)
    assert "lr_mul" in json.dumps(old) and "multiplier" not in json.dumps(old)
    save_weights(tmp_path / "old.safetensors", state, "upsampler", old, torch.float32)  # type: ignore[arg-type]
    first, second = (load_upsampler(str(path)) for path in (tiny_weights, tmp_path / "old.safetensors"))
    assert first.config == second.config
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_an_override_by_the_old_key_beats_a_file_with_the_present_one(tmp_path: Path) -> None:
    present = write(tmp_path / "tiny.toml", TINY_0_1.replace("clip_norm", "max_grad_norm"))
    config = load_config(present, ("train.clip_norm=0.25", "train.data.whole=true"))
    assert config.train.max_grad_norm == 0.25 and config.train.data.full_image


def test_a_file_may_extend_one_of_version_0_1(tmp_path: Path) -> None:
    write(tmp_path / "old.toml", TINY_0_1)
    new = write(tmp_path / "new.toml", 'extends = "old.toml"\n[train]\nmax_grad_norm = 0.5\n')
    config = load_config(new)
    assert config.train.max_grad_norm == 0.5 and config.train.data.max_downscale == 2.0


def test_both_spellings_of_a_key_are_an_error_that_names_them(tmp_path: Path) -> None:
    both = TINY_0_1.replace("clip_norm = 1.0", "clip_norm = 1.0\nmax_grad_norm = 2.0")
    with pytest.raises(ValueError, match="both.toml: max_grad_norm: expected one spelling of the key, got"):
        load_config(write(tmp_path / "both.toml", both))


def test_names_of_scores_are_the_users_own(tmp_path: Path) -> None:
    text = TINY_0_1.replace("workers = 0 }", "workers = 0, min_scores = { camera = 0.5 } }")
    config = load_config(write(tmp_path / "a.toml", text), ("train.data.min_scores.mirror=0.1",))
    assert config.train.data.min_scores == {"camera": 0.5, "mirror": 0.1}
