"""A checkpoint is self-sufficient, exact, and never half written."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gigasr.models.checkpoint import CheckpointError, load_state, load_weights, open_weights, save_state, save_weights

STATE = {"a.weight": torch.randn(3, 4), "count": torch.tensor(3)}


def test_fp32_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_weights(path, STATE, "upsampler", {"scale": 8}, torch.float32, licence="Apache-2.0")
    state, config, header = load_weights(path, "upsampler")
    assert all(torch.equal(state[key], STATE[key]) for key in STATE)
    assert config == {"scale": 8}
    assert header["licence"] == "Apache-2.0"


def test_only_floating_tensors_are_stored_in_the_smaller_type(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_weights(path, STATE, "upsampler", {}, torch.float16)
    state, _, _ = load_weights(path, "upsampler")
    assert (state["a.weight"].dtype, state["count"].dtype) == (torch.float16, torch.int64)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_weights(path, STATE, "text_tower", {}, torch.float32)
    with pytest.raises(CheckpointError, match="expected the weights of a gigasr upsampler, got text_tower"):
        load_weights(path, "upsampler")


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="a file without gigasr's header"):
        load_weights(path, "upsampler")


def test_an_empty_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"empty\.pth: expected tensors and plain data, got: .*; ask for it as"):
        open_weights(tmp_path / "empty.pth")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\xff" * 4096])
def test_garbage_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="expected a safetensors file"):
        load_weights(path, "upsampler")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_weights(path, STATE, "upsampler", {}, torch.float32)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match="expected a safetensors file"):
        load_weights(path, "upsampler")


def test_a_training_state_comes_back(tmp_path: Path) -> None:
    state = {"network": STATE, "step": 7, "lr": 0.5}
    save_state(tmp_path / "state.pt", state)
    loaded = load_state(tmp_path / "state.pt")
    assert (loaded["step"], loaded["lr"]) == (7, 0.5)
    assert torch.equal(loaded["network"]["a.weight"], STATE["a.weight"])


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 and no more"])
def test_a_damaged_training_state_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"state\.pt: expected a training state, got another or a damaged file"):
        load_state(tmp_path / "state.pt")


def test_weights_are_as_readable_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_weights(tmp_path / "a.safetensors", STATE, "upsampler", {}, torch.float32)
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
