"""Several processes train as one would: replicas, shards, and states that fit any number of them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from train_two import train

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
SHARDED = (*UPSAMPLER, "train.fsdp=true")
SAMPLED = (*SHARDED, "train.sample_every=1", "train.save_every=100")  # samples, and no save after them
Plan = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def plan(photo_folder: Path, lpips_features: Path) -> Plan:
    """The arguments of one run."""

    def arguments(
        folder: Path,
        steps: int,
        overrides: tuple[str, ...] = UPSAMPLER,
        resume: bool = False,
        config: str = "upsampler",
    ) -> dict[str, Any]:
        paths = {"config": ROOT / "configs" / f"{config}_tiny.toml", "data": photo_folder, "lpips": lpips_features}
        texts = {name: str(path) for name, path in (paths | {"folder": folder}).items()}
        return texts | {"steps": steps, "overrides": overrides, "resume": resume}

    return arguments


@pytest.fixture(scope="module")
def of_two(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of the runs of two processes: one group runs them all, as to start it takes longer than they do."""
    folder = tmp_path_factory.mktemp("of_two")
    runs = [
        plan(folder / "replicas", 3),
        plan(folder / "shards", 1, SHARDED),
        plan(folder / "resumed", 1, SHARDED),
        plan(folder / "resumed", 3, SAMPLED, resume=True),
        plan(folder / "half", 2),
        plan(folder / "base", 2, STAGE, config="base"),
    ]
    (folder / "runs.json").write_text(json.dumps(runs), encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launch, str(ROOT / "tests" / "train_two.py"), str(folder / "runs.json")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        pytest.fail(done.stderr[-3000:])
    return folder


LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node=2"],
    "accelerate": [
        *("accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"),
        *("--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"),
    ],
}


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def alone(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process with the whole batch."""
    folder = tmp_path_factory.mktemp("alone")
    train(**plan(folder, 3))
    return folder


def weights(folder: Path, kind: str = "upsampler") -> dict[str, Tensor]:
    return load_weights(folder / "model.safetensors", kind)[0]


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[key] - b[key]).abs().max()) for key in a)


def test_two_replicas_give_the_weights_of_one_process_with_the_whole_batch(alone: Path, of_two: Path) -> None:
    assert difference(weights(of_two / "replicas"), weights(alone)) < 1e-5
    a, b = (load_state(folder / "state.pt")["players"] for folder in (of_two / "replicas", alone))
    assert all(difference(a[name]["module"], b[name]["module"]) < 1e-5 for name in ("g", "d"))


def test_shards_train_save_and_resume_and_give_the_same_weights(alone: Path, of_two: Path) -> None:
    assert difference(weights(of_two / "shards"), weights(alone)) > 1e-4  # two steps apart
    assert load_state(of_two / "resumed" / "state.pt")["step"] == 3
    assert difference(weights(of_two / "resumed"), weights(alone)) < 1e-5


def test_one_process_goes_on_from_a_state_of_two(alone: Path, of_two: Path, plan: Plan) -> None:
    assert load_state(of_two / "half" / "state.pt")["step"] == 2
    train(**plan(of_two / "half", 3, resume=True))
    assert difference(weights(of_two / "half"), weights(alone)) < 1e-5
    assert torch.isfinite(torch.cat([w.flatten() for w in weights(of_two / "half").values()])).all()


def test_replicas_train_a_base_generator_in_stages_as_one_process_does(
    of_two: Path, plan: Plan, tmp_path: Path
) -> None:
    train(**plan(tmp_path, 2, STAGE, config="base"))
    assert difference(weights(tmp_path, "base"), weights(of_two / "base", "base")) < 1e-5


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
