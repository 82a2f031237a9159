"""Networks that spandrel knows run as it runs them; what is no network is refused and not executed."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from spandrel import ModelLoader
from torch import Tensor

from gigasr.cli import main
from gigasr.files.images import read_image
from gigasr.inference.devices import ExecutionPlan
from gigasr.inference.tiling import pad_to_multiple
from gigasr.models.checkpoint import CheckpointError, load_weights
from gigasr.models.zoo import convert_weights, find_model, load_model

SMALL = {"img_size": 16, "embed_dim": 12, "num_heads": [2], "upscale": 2, "upsampler": "pixelshuffle"}
WINDOWS = SMALL | {"window_size": 4, "depths": [2]}
NETWORKS: list[tuple[str, str, dict[str, Any]]] = [  # spandrel's module, its class, small dimensions
    ("ESRGAN", "ESRGAN", {"num_filters": 8, "num_blocks": 1}),
    ("Compact", "Compact", {"num_feat": 8, "num_conv": 2}),
    ("SPAN", "SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8}),
    ("PLKSR", "PLKSR", {"dim": 16, "n_blocks": 2}),
    ("RealCUGAN", "UpCunet2x", {}),
    ("SAFMN", "SAFMN", {"dim": 8, "n_blocks": 1}),
    ("SwinIR", "SwinIR", WINDOWS),
    ("HAT", "HAT", WINDOWS | {"compress_ratio": 3, "squeeze_factor": 3}),
    ("DAT", "DAT", SMALL | {"embed_dim": 32, "split_size": [4, 4], "depth": [2]}),
    ("OmniSR", "OmniSR", {"num_feat": 8, "block_num": 1, "res_num": 1, "up_scale": 2, "window_size": 4}),
    ("ATD", "ATD", WINDOWS | {"category_size": 16, "num_tokens": 8, "reducted_dim": 4}),
    ("DRCT", "DRCT", WINDOWS | {"gc": 4}),
    ("SCUNet", "SCUNet", {"config": [1] * 7}),
    ("RCAN", "RCAN", {"n_feats": 8, "n_resblocks": 1, "n_resgroups": 1, "scale": 2, "reduction": 2}),
]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """131x93 px"""
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 11, 3), dtype=np.uint8))
    small.resize((131, 93), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def save_network(path: Path, module: str, name: str, options: dict[str, Any]) -> Path:
    """Save an untrained network of spandrel's as others save theirs."""
    torch.manual_seed(0)
    state = getattr(import_module(f"spandrel.architectures.{module}"), name)(**options).state_dict()
    torch.save({"params_ema": state}, path)
    return path


@torch.inference_mode()
def results(photo: Path, model: Path, *options: str) -> tuple[Tensor, Tensor]:
    """What the command makes of a photo, and what spandrel makes of it, extended by reflection to 64 px a side."""
    target = photo.with_name("large.png")
    exact = ("--fidelity", "0", "--fp32", "--bit-depth", "16")
    run = CliRunner().invoke(main, ["upscale", str(photo), "-o", str(target), "-n", str(model), *exact, *options])
    assert run.exit_code == 0, run.output
    result = read_image(target).rgb
    expected = ModelLoader().load_from_file(model)(pad_to_multiple(read_image(photo).rgb[None], 1, 64))[0]
    return result, expected[:, : result.shape[1], : result.shape[2]]


@pytest.mark.parametrize(("module", "name", "options"), NETWORKS, ids=[name for _, name, _ in NETWORKS])
def test_upscale_gives_what_spandrel_makes_of_a_network(
    module: str, name: str, options: dict[str, Any], photo: Path, tmp_path: Path
) -> None:
    with Image.open(photo) as image:
        image.crop((40, 30, 87, 63)).save(photo)
    result, expected = results(photo, save_network(tmp_path / "model.pth", module, name, options))
    assert expected.std() > 0.01
    torch.testing.assert_close(result, expected, atol=3e-5, rtol=0)


@pytest.mark.parametrize(("module", "name", "options"), NETWORKS[:3], ids=[name for _, name, _ in NETWORKS[:3]])
def test_of_tiles_that_are_blended_nothing_is_seen_where_the_network_does_not_look_far(
    module: str, name: str, options: dict[str, Any], photo: Path, tmp_path: Path
) -> None:
    result, expected = results(photo, save_network(tmp_path / "model.pth", module, name, options), "--tile", "64")
    torch.testing.assert_close(result, expected, atol=1e-3, rtol=0)


def test_a_network_that_takes_one_image_at_a_time_gets_one_tile(photo: Path, tmp_path: Path) -> None:
    options = {"in_nc": 4, "out_nc": 3, "nc": [4, 8, 8, 8]}
    path = save_network(tmp_path / "model.pth", "DRUNet", "DRUNet", options)
    result, expected = results(photo, path, "--tile", "80", "--batch", "2")
    assert (result - expected).abs().mean() < 0.01


def test_a_network_that_may_not_be_cut_gets_the_whole_image(tmp_path: Path) -> None:
    model = load_model(str(save_network(tmp_path / "model.pth", *NETWORKS[6])))
    assert len(model.engine("", 0, ExecutionPlan()).plan(3000, 2000)) == 1


def test_weights_over_which_spandrel_stumbles_are_refused_in_one_line(tmp_path: Path) -> None:
    path = save_network(tmp_path / "odd.pth", "HAT", "HAT", WINDOWS)  # it divides by a number of channels that is 0
    with pytest.raises(CheckpointError, match="odd.pth: expected complete weights, got: .*division.* by zero"):
        load_model(str(path))


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"params_ema": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="expected tensors and plain data"):
        load_model(str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()


def test_weights_of_no_known_kind_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="expected weights of a known kind"):
        load_model(str(tmp_path / "a.pth"))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="expected a file of weights"):
        find_model(str(tmp_path))


@pytest.mark.parametrize("target", ["tiny.pth", "folder"])
def test_converted_weights_are_the_same_there_and_back(target: str, tiny_weights: Path, tmp_path: Path) -> None:
    convert_weights(tiny_weights, tmp_path / target)
    convert_weights(find_model(str(tmp_path / target)), tmp_path / "back.safetensors")
    state, *rest = load_weights(tmp_path / "back.safetensors", "upsampler")
    expected, *expected_rest = load_weights(tiny_weights, "upsampler")
    assert rest == expected_rest
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
