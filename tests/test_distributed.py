"""Several processes train as one would: replicas, shards, and states that fit any number of them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gigasr.models.checkpoint import load_state, load_weights

ROOT = Path(__file__).parents[1]
UPSAMPLER = (  # what looks across a batch sees only its own process's part of it
    "discriminator.minibatch_std=0",
    "train.degradation.mild=0",
    "train.validate_every=0",
    "train.phases.0.batch_size=4",
    "train.phases.1.batch_size=4",
    "train.phases.1.loss.matching=0.0",
)
STAGE = (  # of a base generator: all but its last level
    "train.phases.0.crop=8",
    "train.phases.0.batch_size=4",
    "train.phases.0.loss={l1=1.0, lpips=0.0, adversarial=0.0, matching=0.0, r1=0.0}",
    "train.validate_every=0",
)


def train(
    processes: int,
    data: Path,
    folder: Path,
    lpips: Path,
    steps: int,
    *overrides: str,
    resume: str = "-",
    config: str = "upsampler_tiny",
) -> None:
    """Start a tiny config's training in some processes and wait for its end."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    path = ROOT / "configs" / f"{config}.toml"
    overrides = (UPSAMPLER if config == "upsampler_tiny" else ()) + overrides
    arguments = [ROOT / "tests" / "train_two.py", path, data, folder, lpips, steps, resume, *overrides]
    command = [sys.executable, *launch, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment())
    if done.returncode:
        pytest.fail(done.stderr[-3000:])


LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node=2"],
    "accelerate": [
        *("accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"),
        *("--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"),
    ],
}


def environment() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def weights(folder: Path, kind: str = "upsampler") -> dict[str, Tensor]:
    return load_weights(folder / "model.safetensors", kind)[0]


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[key] - b[key]).abs().max()) for key in a)


@pytest.fixture(scope="module")
def alone(photo_folder: Path, lpips_features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process with the whole batch."""
    folder = tmp_path_factory.mktemp("alone")
    train(1, photo_folder, folder, lpips_features, 3)
    return folder


def test_two_replicas_give_the_weights_of_one_process_with_the_whole_batch(
    alone: Path, photo_folder: Path, lpips_features: Path, tmp_path: Path
) -> None:
    train(2, photo_folder, tmp_path, lpips_features, 3)
    assert difference(weights(tmp_path), weights(alone)) < 1e-5
    a, b = (load_state(folder / "state.pt")["players"] for folder in (tmp_path, alone))
    assert all(difference(a[name]["module"], b[name]["module"]) < 1e-5 for name in ("g", "d"))


def test_shards_train_save_and_resume_and_give_the_same_weights(
    alone: Path, photo_folder: Path, lpips_features: Path, tmp_path: Path
) -> None:
    train(2, photo_folder, tmp_path, lpips_features, 1, "train.fsdp=true")
    assert difference(weights(tmp_path), weights(alone)) > 1e-4  # two steps apart
    between = ("train.fsdp=true", "train.sample_every=1", "train.save_every=100")  # samples, and no save after them
    train(2, photo_folder, tmp_path, lpips_features, 3, *between, resume="resume")
    assert load_state(tmp_path / "state.pt")["step"] == 3
    assert difference(weights(tmp_path), weights(alone)) < 1e-5


def test_one_process_goes_on_from_a_state_of_two(
    alone: Path, photo_folder: Path, lpips_features: Path, tmp_path: Path
) -> None:
    train(2, photo_folder, tmp_path, lpips_features, 2)
    train(1, photo_folder, tmp_path, lpips_features, 3, resume="resume")
    assert difference(weights(tmp_path), weights(alone)) < 1e-5
    assert torch.isfinite(torch.cat([w.flatten() for w in weights(tmp_path).values()])).all()


def test_replicas_train_a_base_generator_in_stages_as_one_process_does(
    photo_folder: Path, lpips_features: Path, tmp_path: Path
) -> None:
    for count in (1, 2):
        train(count, photo_folder, tmp_path / str(count), lpips_features, 2, *STAGE, config="base_tiny")
    assert difference(weights(tmp_path / "1", "base"), weights(tmp_path / "2", "base")) < 1e-5


def test_torchrun_and_accelerate_start_the_same_training(
    photo_folder: Path, lpips_features: Path, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate", reason="the launcher is not installed")
    config = ROOT / "configs" / "upsampler_tiny.toml"
    options = ["--data", photo_folder, "--lpips-features", lpips_features, "--device", "cpu"]
    options += [item for override in (*UPSAMPLER, "train.phases.1.images=4") for item in ("--set", override)]
    for name, launcher in LAUNCHERS.items():
        command = [sys.executable, "-m", *launcher, "-m", "gigasr", "train", config, *options, "-o", tmp_path / name]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment())
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("model.safetensors  after 8 images") == 1  # of two processes
    assert difference(weights(tmp_path / "torchrun"), weights(tmp_path / "accelerate")) == 0
