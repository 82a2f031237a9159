"""Run by test_trainer.py: train the tiny config and die of SIGKILL halfway through the second save.

usage: train_killed.py CONFIG DATA FOLDER LPIPS
"""

import os
import signal
import sys
from pathlib import Path

import torch

from gigasr.config.model import load_config
from gigasr.data.shards import open_source
from gigasr.models import checkpoint
from gigasr.training.adversarial import AdversarialTask
from gigasr.training.trainer import Trainer

config_path, data, folder, lpips = sys.argv[1:]
config = load_config(Path(config_path))
task = AdversarialTask.from_config(config, torch.device("cpu"), Path(lpips))
trainer = Trainer(task, open_source(data, config.train.data, "train"), Path(folder))
save = torch.save


def save_or_die(state: object, path: Path) -> None:
    save(state, path)
    if (Path(folder) / "state.pt").exists():
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)


checkpoint.torch.save = save_or_die
trainer.fit(lambda images, log: None)
