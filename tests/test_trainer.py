"""Training runs its phases, resumes exactly, stops when asked, and survives disks that fill up."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_shards import broken_samples, write_shard

from gigasr.config.model import Config
from gigasr.data.loader import LoadedBatch
from gigasr.data.shards import open_source
from gigasr.models import checkpoint
from gigasr.models.zoo import load_upsampler
from gigasr.training.adversarial import AdversarialTask
from gigasr.training.trainer import DataSource, Trainer

Make = Callable[..., Trainer]


@pytest.fixture
def make(tiny_config: Config, photo_folder: Path, lpips_features: Path, tmp_path: Path) -> Make:
    """Build a trainer of the tiny config in a folder of its own."""

    def build(folder: str = "run", config: Config = tiny_config, shards: Path | None = None) -> Trainer:
        task = AdversarialTask.from_config(config, torch.device("cpu"), lpips_features)
        data, split = config.train.data, config.train.data.validation_split
        source, validation = (open_source(str(shards or photo_folder), data, s) for s in (data.split, split))
        return Trainer(task, source, tmp_path / folder, validation)

    return build


def with_train(config: Config, **changes: object) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update=changes)})


def run(trainer: Trainer, steps: int | None = None) -> list[dict[str, float]]:
    """Fit; after a number of steps ask for a stop, as a terminal or a scheduler would."""
    logs: list[dict[str, float]] = []

    def progress(images: int, log: dict[str, float]) -> None:
        logs.append(log)
        if len(logs) == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    assert trainer.fit(progress) == (steps is None)
    return logs


def states_equal(a: Trainer, b: Trainer) -> bool:
    networks = ("generator", "generator_ema", "discriminator")
    pairs = [(getattr(a.task, name).state_dict(), getattr(b.task, name).state_dict()) for name in networks]
    return all(torch.equal(x[key], y[key]) for x, y in pairs for key in x)


def test_phases_run_with_their_own_terms(make: Make) -> None:
    logs = run(make())
    assert [set(log) for log in logs[:2]] == [{"g/l1", "g/lpips"}] * 2
    assert set(logs[2]) == {"d/adversarial", "d/matching", "d/r1", "g/l1", "g/lpips", "g/adversarial"}
    assert len(logs) == 6


def test_a_run_leaves_weights_log_samples_and_validation(make: Make, tiny_config: Config) -> None:
    trainer = make()
    run(trainer)
    rows = [json.loads(line) for line in (trainer.folder / "log.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows if "val/psnr_y" not in row] == [2, 4, 6, 8, 10, 12]
    assert {"val/psnr_y", "val/lpips"} <= set(rows[-1])
    assert load_upsampler(str(trainer.folder / "model.safetensors")).config == tiny_config.upsampler
    assert (trainer.folder / "samples-00000008.png").exists()


def test_a_run_that_was_asked_to_stop_resumes_bit_for_bit(make: Make) -> None:
    whole = make("whole")
    run(whole)
    run(make("parts"), steps=3)
    resumed = make("parts")
    resumed.resume()
    assert resumed.images_seen == 6
    run(resumed)
    assert states_equal(whole, resumed)


def test_readers_outlive_the_signal_that_asks_for_a_stop(make: Make, tiny_config: Config) -> None:
    data = tiny_config.train.data.model_copy(update={"num_workers": 1})
    trainer = make(config=with_train(tiny_config, data=data))
    signalled: list[int] = []

    def progress(images: int, log: dict[str, float]) -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGTERM)
            signalled.append(child.pid or 0)

    assert trainer.fit(progress)
    assert signalled


def test_forty_steps_in_two_parts_equal_forty_in_one(make: Make, tiny_config: Config) -> None:
    adversarial = tiny_config.train.phases[1].model_copy(update={"images": 80})
    config = with_train(tiny_config, phases=(adversarial,), save_every=1000, sample_every=1000, validate_every=0)
    whole = make("whole", config)
    run(whole)
    run(make("parts", config), steps=20)
    resumed = make("parts", config)
    resumed.resume()
    run(resumed)
    assert whole.step == resumed.step == 40
    assert states_equal(whole, resumed)


@pytest.fixture
def float64() -> Iterator[None]:
    """Let networks and random numbers be in float64: Adam makes a whole step of a gradient that is only rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class InFloat64:
    """Crops of another source in float64."""

    def __init__(self, source: DataSource) -> None:
        self.source = source

    def batches(self, *arguments: Any) -> Iterator[LoadedBatch]:
        for batch in self.source.batches(*arguments):
            yield batch._replace(hr=batch.hr.double())


@pytest.mark.numerics
def test_accumulated_micro_batches_equal_one_batch(float64: None, make: Make, tiny_config: Config) -> None:
    discriminator = tiny_config.discriminator.model_copy(update={"minibatch_std": 0})  # it looks across the batch
    config = tiny_config.model_copy(update={"discriminator": discriminator})
    loss = config.train.phases[1].loss.model_copy(update={"matching": 0.0})  # so does whose caption is swapped
    phase = config.train.phases[1].model_copy(update={"images": 8, "batch_size": 4, "loss": loss})
    one, four = (with_train(config, phases=(phase,), gradient_accumulation_steps=n, precision="fp32") for n in (1, 4))
    whole, parts = make("one", one), make("four", four)
    for trainer in (whole, parts):
        trainer.source = InFloat64(trainer.source)
        run(trainer)
    for name in ("generator", "discriminator"):
        a, b = (list(getattr(trainer.task, name).parameters()) for trainer in (whole, parts))
        assert {parameter.dtype for parameter in a} == {torch.float64}
        torch.testing.assert_close([x.grad for x in a], [x.grad for x in b], atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)  # of a step of 2.5e-3: Adam magnifies rounding near zero


def test_recomputed_blocks_give_the_same_run(make: Make, tiny_config: Config) -> None:
    plain, recomputed = make("plain"), make("recomputed", with_train(tiny_config, gradient_checkpointing=True))
    run(plain)
    run(recomputed)
    a, b = plain.task.generator.state_dict(), recomputed.task.generator.state_dict()
    assert all(torch.allclose(a[key], b[key], atol=1e-6) for key in a)


def test_a_batch_that_processes_cannot_share_is_refused_before_the_first_step(make: Make, tiny_config: Config) -> None:
    first, last = tiny_config.train.phases
    phases = first.model_copy(update={"batch_size": 3}), last
    with pytest.raises(ValueError, match=r"batch_size: expected a multiple of 3 .* got 2"):
        make(config=with_train(tiny_config, phases=phases, gradient_accumulation_steps=3))


def test_a_second_request_to_stop_does_not_reach_the_save_of_the_first(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make()
    save = trainer.save

    def impatient() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save()

    monkeypatch.setattr(trainer, "save", impatient)
    run(trainer, steps=1)
    assert (trainer.folder / "state.pt").exists()


def test_steps_that_come_again_stand_once_in_the_log(make: Make, tiny_config: Config) -> None:
    config = with_train(tiny_config, log_every=1, validate_every=0)
    run(make(config=config), steps=2)
    with (make(config=config).folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 3, "images": 6}\n{"step": 4, "ima')  # of a run that was killed
    resumed = make(config=config)
    resumed.resume()
    run(resumed)
    rows = [json.loads(line) for line in (resumed.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 7))


def test_a_state_of_other_networks_is_refused_with_advice(make: Make, tiny_config: Config) -> None:
    run(make())
    other = tiny_config.discriminator.model_copy(update={"out_channels": 24})
    with pytest.raises(
        checkpoint.CheckpointError, match=r"state\.pt: expected a state of the same networks, got: .*size"
    ):
        make(config=tiny_config.model_copy(update={"discriminator": other})).resume()


def test_a_non_finite_term_stops_the_run_and_is_named(make: Make) -> None:
    trainer = make()
    with torch.no_grad():
        trainer.task.generator.stem.bias.fill_(float("nan"))
    with pytest.raises(RuntimeError, match=r"step 0, 0 images: g/l1: expected a finite value, got nan"):
        trainer.fit(lambda images, log: None)


def test_a_non_finite_gradient_stops_the_run_before_it_reaches_the_weights(make: Make) -> None:
    trainer = make()
    parameter = trainer.task.generator.stem.bias
    parameter.register_hook(lambda gradient: torch.full_like(gradient, float("inf")))
    before = {name: value.clone() for name, value in trainer.task.generator.state_dict().items()}
    with pytest.raises(RuntimeError, match=r"step 0, 0 images: g/gradient norm: expected a finite value, got"):
        trainer.fit(lambda images, log: None)
    after = trainer.task.generator.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_rates_of_a_phase_fall_with_the_root_of_what_is_left_of_it(make: Make, tiny_config: Config) -> None:
    trainer = make()
    phase = tiny_config.train.phases[0].model_copy(update={"images": 100, "learning_rate_decay": True})
    trainer.phase_start = 50
    rates = []
    for trainer.images_seen in (50, 100, 125, 150):
        rates.append(trainer.decay(phase))
    assert rates == [1.0, 0.5**0.5, 0.5, 0.1]
    assert trainer.decay(phase.model_copy(update={"learning_rate_decay": False})) == 1.0


def test_a_disk_that_fills_up_while_saving_leaves_the_last_state(make: Make) -> None:
    resource = pytest.importorskip("resource")
    trainer = make()
    run(trainer, steps=2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # as if that were all the room there is
    try:
        with pytest.raises(OSError, match="state.pt|model.safetensors"):
            trainer.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    resumed = make()
    resumed.resume()
    assert resumed.step == 2
    assert not list(trainer.folder.glob(".*.tmp"))


def test_a_shard_with_broken_samples_leaves_a_state_that_resumes_bit_for_bit(make: Make, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    write_shard(shards / "0.tar", broken_samples())  # one in twenty
    whole = make("whole", shards=shards)
    run(whole)
    run(make("parts", shards=shards), steps=3)
    resumed = make("parts", shards=shards)
    resumed.resume()
    run(resumed)
    assert states_equal(whole, resumed)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_run_killed_while_it_saves_resumes_from_its_last_state(
    make: Make, photo_folder: Path, lpips_features: Path, tmp_path: Path
) -> None:
    root, folder = Path(__file__).parents[1], tmp_path / "run"
    arguments = [root / "configs" / "upsampler_tiny.toml", photo_folder, folder, lpips_features]
    command = [sys.executable, root / "tests" / "train_killed.py", *arguments]
    done = subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(folder.glob(".*.tmp"))  # half a state, beside the whole one
    whole, resumed = make("whole"), make()
    run(whole)
    resumed.resume()
    assert resumed.step == 2
    assert not list(folder.glob(".*.tmp"))
    run(resumed)
    assert states_equal(whole, resumed)


def test_curves_and_pictures_go_to_tensorboard(make: Make, tiny_config: Config) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = make(config=with_train(tiny_config, tracker="tensorboard"))
    run(trainer)
    events = EventAccumulator(str(next(trainer.folder.rglob("events.out.tfevents.*")).parent))
    events.Reload()
    assert {"g/l1", "d/r1", "val/psnr_y"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Images("samples")] == [8]


def test_bf16_trains_and_keeps_its_weights_in_fp32(make: Make, tiny_config: Config) -> None:
    trainer = make(config=with_train(tiny_config, precision="bf16"))
    logs = run(trainer)
    assert len(logs) == 6
    assert {p.dtype for p in trainer.task.generator.parameters()} == {torch.float32}


def test_a_resumed_run_has_the_weight_decay_of_its_config(make: Make, tiny_config: Config) -> None:
    run(make("first"))
    train = tiny_config.train.model_copy(update={"weight_decay": 0.5, "attention_weight_decay": 0.25})
    again = make("first", tiny_config.model_copy(update={"train": train}))
    again.resume()
    for trained in again.task.networks.trained.values():
        assert [group["weight_decay"] for group in trained.optimizer.param_groups] == [0.5, 0.25]


def test_a_run_can_start_from_the_weights_of_another(make: Make, tmp_path: Path) -> None:
    first, second = make("first"), make("second")
    run(first)
    second.start_from(tmp_path / "first" / "model.safetensors")
    trained = first.task.generator_ema.state_dict()
    for network in (second.task.generator, second.task.generator_ema):
        assert all(torch.equal(value, trained[key]) for key, value in network.state_dict().items())
    assert second.images_seen == 0


def test_weights_that_lack_a_layer_are_refused_as_a_start(make: Make, tiny_config: Config, tmp_path: Path) -> None:
    run(make("first"))
    *levels, last = tiny_config.upsampler.levels
    deeper = [*levels, last.model_copy(update={"blocks": last.blocks + 1})]
    config = tiny_config.model_copy(update={"upsampler": tiny_config.upsampler.model_copy(update={"levels": deeper})})
    with pytest.raises(checkpoint.CheckpointError, match=r"fit the config, got: missing: levels\.\d.* and \d+ more"):
        make("second", config).start_from(tmp_path / "first" / "model.safetensors")


def test_weights_of_another_size_are_refused_as_a_start(make: Make, tiny_config: Config, tmp_path: Path) -> None:
    run(make("first"))
    wider = tiny_config.model_copy(update={"upsampler": tiny_config.upsampler.model_copy(update={"w_dim": 24})})
    with pytest.raises(checkpoint.CheckpointError, match="expected weights that fit the config"):
        make("second", wider).start_from(tmp_path / "first" / "model.safetensors")
