"""Run by test_distributed.py in every process: train a tiny config with overrides, stop after some steps.

usage: train_two.py CONFIG DATA FOLDER LPIPS STEPS RESUME [A.B=C ...]
"""

import sys
from pathlib import Path

from gigasr.config.model import load_config
from gigasr.data.shards import open_source
from gigasr.training.distributed import join_processes, leave_processes
from gigasr.training.game import Game
from gigasr.training.trainer import Trainer
from gigasr_base.config import load_base_config
from gigasr_base.game import BaseGame

config_path, data, folder, lpips, steps, resume, *overrides = sys.argv[1:]
is_base = Path(config_path).name.startswith("base")
config = (load_base_config if is_base else load_config)(Path(config_path), tuple(overrides))
device = join_processes("cpu")
game = (BaseGame if is_base else Game)(config, device, Path(lpips))
for player in game.players.values():
    for group in player.optimizer.param_groups:
        group["eps"] = 1e-2  # Adam's own would turn the rounding of a vanishing gradient into a full step
trainer = Trainer(game, open_source(data, config.train.data, "train"), Path(folder))
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
