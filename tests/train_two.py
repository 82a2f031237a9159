"""Train tiny configs, one after the other; test_distributed.py runs it in every process of a group.

usage: train_two.py RUNS, a JSON file of a list of `train`'s arguments
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from gigasr.config.model import load_config
from gigasr.data.shards import open_source
from gigasr.training.adversarial import AdversarialTask
from gigasr.training.distributed import join_processes, leave_processes
from gigasr.training.trainer import Trainer
from gigasr_base.adversarial import BaseAdversarialTask
from gigasr_base.config import load_base_config

CPU = torch.device("cpu")


class EnoughError(Exception):
    pass


def train(
    config: str,
    data: str,
    folder: str,
    lpips: str,
    steps: int,
    overrides: Sequence[str],
    resume: bool,
    device: torch.device = CPU,
) -> None:
    """Train a config with overrides to some step, and save."""
    is_base = Path(config).name.startswith("base")
    parsed = (load_base_config if is_base else load_config)(Path(config), tuple(overrides))
    task = (BaseAdversarialTask if is_base else AdversarialTask).from_config(parsed, device, Path(lpips))
    for trained in task.networks.trained.values():
        for group in trained.optimizer.param_groups:
            group["eps"] = 1e-2  # Adam's own would turn the rounding of a vanishing gradient into a full step
    trainer = Trainer(task, open_source(data, parsed.train.data, "train"), Path(folder))
    if resume:
        trainer.resume()

    def progress(images: int, log: dict[str, float]) -> None:
        if trainer.step == steps:
            raise EnoughError

    try:
        trainer.fit(progress)
    except EnoughError:
        trainer.save()


if __name__ == "__main__":
    device = join_processes("cpu")
    for run in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        train(**run, device=device)
    leave_processes()
