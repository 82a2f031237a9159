"""The training loop: phases, EMA, log, samples, validation, resume."""

import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigasr.config.training import DegradationConfig, PhaseConfig
from gigasr.data.loader import LoadedBatch
from gigasr.data.samples import CropSchedule
from gigasr.files.atomic import remove_leftovers
from gigasr.models.checkpoint import CheckpointError, load_state, load_weights, save_state, save_weights
from gigasr.training.adversarial import AdversarialTask
from gigasr.training.batches import Batch
from gigasr.training.distributed import (
    any_process,
    load_module_state,
    mean_over_processes,
    module_state,
    num_processes,
    process_index,
    wait_for_all,
)
from gigasr.training.run_log import RunLog, stop_requests

_VALIDATION_IMAGES = 32
_SAMPLES = 4  # rows of a grid
TrainingProgress = Callable[[int, dict[str, float]], None]  # images of a step, its log


class DataSource(Protocol):
    """A source of crops: gigasr.data.folder or gigasr.data.shards."""

    def batches(
        self, schedule: CropSchedule, batch_size: int, start: int, end: int, seed: int, rank: int = 0, world: int = 1
    ) -> Iterator[LoadedBatch]:
        """Yield this process's batches of the crops from start to end."""
        ...


class Trainer:
    """The training loop over a source of crops; all files go into one folder."""

    def __init__(
        self, task: AdversarialTask, source: DataSource, folder: Path, validation: DataSource | None = None
    ) -> None:
        self.task, self.train = task, task.train
        self.source, self.validation = source, validation
        self.folder, self.is_main = folder, process_index() == 0
        self.images_seen = self.step = 0
        self.phase_start = 0  # images seen at the start of the current phase
        for phase in self.train.phases:
            self.micro_batch_size(phase)  # raise now for a wrong batch size, not when the phase begins
        self.log = RunLog(folder, self.train.tracker)

    @property
    def total_images(self) -> int:
        """Return the number of images of all phases."""
        return sum(phase.images for phase in self.train.phases)

    def fit(self, progress: TrainingProgress) -> bool:
        """Run the rest of the phases and save the state.

        progress: called after each step with the number of images and the log
        returns:  False if a signal ended the training early
        """
        self.log.trim(self.step)
        with stop_requests() as stop:
            end, is_stopped = 0, False
            for phase in self.train.phases:
                self.phase_start, end = end, end + phase.images
                for batch in self.steps(phase, end):
                    progress(phase.batch_size, self.train_step(batch, phase))
                    # all processes stop together, or some would wait for the stopped ones
                    is_stopped = any_process(stop.is_set(), self.task.device)
                    if is_stopped:
                        break
                if is_stopped:
                    break
            self.save()  # inside the block, where further signals do not interrupt
        self.log.close()
        return self.images_seen >= self.total_images

    def train_step(self, batch: list[Batch], phase: PhaseConfig) -> dict[str, float]:
        """Run one step; then log, sample, validate and save where due."""
        train = self.train
        try:
            log = self.task.step(batch, phase, self.step, self.decay(phase))
        except RuntimeError as error:
            raise RuntimeError(f"step {self.step}, {self.images_seen} images: {error}") from error
        self.step += 1
        self.images_seen += phase.batch_size
        self.task.average(self.images_seen, phase.batch_size)
        self.log.add(log)
        if self.step % train.log_every == 0:
            means = mean_over_processes(self.log.means(), self.task.device)
            self.log.write(self.step, self.images_seen, means)
        if self.step % train.sample_every == 0:
            self.save_samples(batch[0])
        if self.validation is not None and train.validate_every and self.step % train.validate_every == 0:
            metrics = self.validate(self.validation, phase)
            self.log.write(self.step, self.images_seen, metrics)
        if self.step % train.save_every == 0:
            self.save()
        return log

    def decay(self, phase: PhaseConfig) -> float:
        """Return the factor of the learning rates at this point of the phase."""
        if not phase.learning_rate_decay:
            return 1.0
        done = (self.images_seen - self.phase_start) / phase.images
        return max(1e-2, 1.0 - done) ** 0.5

    def steps(self, phase: PhaseConfig, end: int) -> Iterator[list[Batch]]:
        """Yield this process's micro-batches for each remaining step of a phase."""
        count = self.train.gradient_accumulation_steps
        size = self.micro_batch_size(phase)
        batches = self.batches(self.source, self.schedule(phase), size, end, self.train.degradation)
        while self.images_seen < end:
            yield list(islice(batches, count))

    def schedule(self, phase: PhaseConfig) -> CropSchedule:
        """Return the crops of a phase, by number."""
        early = tuple((step.crop, step.scale) for step in phase.early)
        restoration = self.train.degradation.restoration
        return CropSchedule(phase.crop, self.task.scale, early, self.phase_start, phase.batch_size, restoration)

    def micro_batch_size(self, phase: PhaseConfig) -> int:
        """Return the images of one micro-batch in one process."""
        return phase.micro_batch_size(num_processes() * self.train.gradient_accumulation_steps)

    def batches(
        self,
        source: DataSource,
        schedule: CropSchedule,
        size: int,
        end: int,
        degradation: DegradationConfig,
        start: int | None = None,
    ) -> Iterator[Batch]:
        """Yield this process's micro-batches, in whole steps, to at least `end`.

        start: number of the first crop; None = the number of images seen
        """
        rank, world = process_index(), num_processes()
        if start is None:
            start = self.images_seen
        step_size = size * world * self.train.gradient_accumulation_steps
        num_steps = math.ceil((end - start) / step_size)
        end = start + num_steps * step_size
        for loaded in source.batches(schedule, size, start, end, self.train.seed, rank, world):
            _, scale = schedule.at(int(loaded.numbers[0]))
            yield self.task.make_batch(loaded, scale, degradation)

    @torch.no_grad()
    def validate(self, source: DataSource, phase: PhaseConfig) -> dict[str, float]:
        """Compute the averaged generator's metrics on crops of the validation images.

        Low-res inputs are reduced by bicubic interpolation alone.
        """
        rows = []
        size = self.micro_batch_size(phase)
        schedule = CropSchedule(phase.crop, self.task.scale)
        for batch in self.batches(source, schedule, size, _VALIDATION_IMAGES, DegradationConfig(), start=0):
            rows.append(self.task.metrics(batch))
        means = {}
        for name in rows[0]:
            means[f"val/{name}"] = sum(row[name] for row in rows) / len(rows)
        return mean_over_processes(means, self.task.device)

    @torch.no_grad()
    def save_samples(self, batch: Batch) -> None:
        """Write a grid: the upsampled low-res image, if any, the result, the truth."""
        fake = self.task.synthesize(self.task.generator_ema, batch)[-1]
        columns = [fake, batch.hr]
        if batch.lr is not None:
            columns.insert(0, F.interpolate(batch.lr, batch.hr.shape[2:], mode="bicubic"))
        rows = [column[:_SAMPLES] for column in columns]
        self.log.write_samples(self.images_seen, rows, batch.captions[:_SAMPLES])

    def save(self) -> None:
        """Write the averaged model and the state for resuming.

        The files are model.safetensors, discriminator.safetensors and, last, state.pt.
        """
        task = self.task
        average = module_state(task.generator_ema)
        trained_states = {name: trained.state() for name, trained in task.networks.trained.items()}
        state = {
            "generator_ema": average,
            "players": trained_states,  # the key of all state files so far
            "images_seen": self.images_seen,
            "step": self.step,
        }
        if self.is_main:
            config = task.generator_config.model_dump(mode="json")
            save_weights(self.folder / "model.safetensors", average, task.kind, config, torch.float32)
            self.save_discriminator()
            save_state(self.folder / "state.pt", state)
        wait_for_all()

    def save_discriminator(self) -> None:
        """Write the discriminator's weights in half precision, as a start for other runs."""
        config = self.task.config.discriminator.model_dump(mode="json")
        weights = self.task.discriminator.state_dict()
        save_weights(self.folder / "discriminator.safetensors", weights, "discriminator", config, torch.float16)

    def resume(self) -> None:
        """Continue from the folder's state.pt, written by any number of processes.

        A network that the config has gained since starts untrained: a vision-aided discriminator for later phases.
        Raises CheckpointError if the networks differ.
        """
        if self.is_main:
            remove_leftovers(self.folder)  # of a save that was killed
        path = self.folder / "state.pt"
        state = load_state(path)
        try:
            load_module_state(self.task.generator_ema, state["generator_ema"])
            for name, trained in self.task.networks.trained.items():
                if name in state["players"]:
                    trained.load(state["players"][name])
            self.images_seen, self.step = state["images_seen"], state["step"]
        except (RuntimeError, LookupError, TypeError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise CheckpointError(
                f"{path}: expected a state of the same networks, got: {reason}; give the config and the --set of before"
            ) from None

    def start_from(self, path: Path) -> None:
        """Start the generator and the average from a file of weights.

        Every other network starts untrained. A root layer missing from the weights starts at zero.
        Raises CheckpointError if the weights do not fit the config.
        """
        state = load_weights(path, self.task.kind)[0]
        own = module_state(self.task.generator)
        for name, tensor in own.items():
            if name.startswith("to_root."):
                state.setdefault(name, tensor)
        self._fill([self.task.generator, self.task.generator_ema], state, path)

    def start_discriminator_from(self, path: Path) -> None:
        """Start the discriminator from a file of weights.

        Raises CheckpointError if the weights do not fit the config.
        """
        self._fill([self.task.discriminator], load_weights(path, "discriminator")[0], path)

    def _fill(self, networks: list[nn.Module], state: dict[str, Tensor], path: Path) -> None:
        """Load weights into networks. Raises CheckpointError if the weights do not fit."""
        try:
            for network in networks:
                load_module_state(network, state)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise CheckpointError(f"{path}: expected weights that fit the config, got: {reason}") from None
