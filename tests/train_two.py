"""Run by test_distributed.py in every process: train a tiny config with overrides, stop after some steps.

usage: train_two.py CONFIG DATA FOLDER LPIPS STEPS RESUME [A.B=C ...]
"""

import sys
from pathlib import Path

from gigasr.config.model import load_config
from gigasr.data.shards import open_source
from gigasr.training.adversarial import AdversarialTask
from gigasr.training.distributed import join_processes, leave_processes
from gigasr.training.trainer import Trainer
from gigasr_base.adversarial import BaseAdversarialTask
from gigasr_base.config import load_base_config

config_path, data, folder, lpips, steps, resume, *overrides = sys.argv[1:]
is_base = Path(config_path).name.startswith("base")
config = (load_base_config if is_base else load_config)(Path(config_path), tuple(overrides))
device = join_processes("cpu")
task = (BaseAdversarialTask if is_base else AdversarialTask)(config, device, Path(lpips))
for trained in task.trained_networks.values():
    for group in trained.optimizer.param_groups:
        group["eps"] = 1e-2  # Adam's own would turn the rounding of a vanishing gradient into a full step
trainer = Trainer(task, open_source(data, config.train.data, "train"), Path(folder))
if resume == "resume":
    trainer.resume()


class EnoughError(Exception):
    pass


def progress(images: int, log: dict[str, float]) -> None:
    if trainer.step == int(steps):
        raise EnoughError


try:
    trainer.fit(progress)
except EnoughError:
    trainer.save()
leave_processes()
