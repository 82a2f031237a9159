"""Networks that spandrel knows run as it runs them; what is no network is refused and not executed."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from spandrel import ModelLoader

from gigasr.checkpoint import CheckpointError, load_weights
from gigasr.devices import Place
from gigasr.foreign import SpandrelModel
from gigasr.rows import Rows
from gigasr.zoo import convert, find, load_model

NETWORKS: list[tuple[str, str, dict[str, Any]]] = [
    ("ESRGAN", "ESRGAN", {"num_filters": 8, "num_blocks": 1}),
    ("Compact", "Compact", {"num_feat": 8, "num_conv": 2}),
    ("SPAN", "SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8}),
    ("PLKSR", "PLKSR", {"dim": 16, "n_blocks": 2}),
    ("RealCUGAN", "UpCunet2x", {}),
    ("SAFMN", "SAFMN", {"dim": 8, "n_blocks": 1}),
]


@torch.inference_mode()
@pytest.mark.parametrize(("module", "name", "options"), NETWORKS, ids=[name for _, name, _ in NETWORKS])
def test_a_network_gives_what_spandrel_makes_of_it(
    module: str, name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    state = getattr(import_module(f"spandrel.architectures.{module}"), name)(**options).state_dict()
    path = tmp_path / "model.pth"
    torch.save({"params_ema": state}, path)
    image = torch.rand(1, 3, 33, 47)
    expected = ModelLoader().load_from_file(path)(image)
    model = load_model(str(path))
    assert isinstance(model, SpandrelModel)
    result = torch.cat(list(model.engine("", 0, Place()).strips(Rows.of(image * 2 - 1), 0)), dim=2)
    torch.testing.assert_close(result / 2 + 0.5, expected, atol=1e-5, rtol=0)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:  # noqa: ANN401
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
        find(str(tmp_path))


@pytest.mark.parametrize("target", ["tiny.pth", "folder"])
def test_converted_weights_are_the_same_there_and_back(target: str, tiny_weights: Path, tmp_path: Path) -> None:
    convert(tiny_weights, tmp_path / target)
    convert(find(str(tmp_path / target)), tmp_path / "back.safetensors")
    state, *rest = load_weights(tmp_path / "back.safetensors", "upsampler")
    expected, *expected_rest = load_weights(tiny_weights, "upsampler")
    assert rest == expected_rest
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
