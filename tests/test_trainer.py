"""Training runs its phases, resumes exactly, and stops where numbers go wrong."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from gigasr import trainer as module
from gigasr.config import Config
from gigasr.data import read_folder
from gigasr.metrics import Lpips
from gigasr.trainer import Trainer, roll
from gigasr.zoo import load_upsampler


@pytest.fixture(autouse=True)
def lpips_with_random_features(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone file made here, as torchvision's cannot be downloaded in a test."""
    import torchvision

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("lpips") / "features.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).features.state_dict(), path)
    monkeypatch.setattr(module, "Lpips", lambda net, features: Lpips(net, features=path))
    return path


def make(config: Config, photos: Path, folder: Path) -> Trainer:
    return Trainer(config, read_folder(photos, config.train.split), folder, torch.device("cpu"), None)


def run(trainer: Trainer, steps: int | None = None) -> list[dict[str, float]]:
    """Fit, stopping right after a number of steps."""
    logs: list[dict[str, float]] = []

    def progress(images: int, log: dict[str, float]) -> None:
        logs.append(log)
        if len(logs) == steps:
            trainer.save()
            raise KeyboardInterrupt

    try:
        trainer.fit(progress)
    except KeyboardInterrupt:
        assert len(logs) == steps
    return logs


def test_both_phases_run_with_their_own_terms(tiny_config: Config, photo_folder: Path, tmp_path: Path) -> None:
    logs = run(make(tiny_config, photo_folder, tmp_path))
    assert [set(log) for log in logs[:2]] == [{"g/l1", "g/lpips"}] * 2
    assert set(logs[2]) == {"d/adversarial", "d/matching", "d/r1", "g/l1", "g/lpips", "g/adversarial"}
    assert len(logs) == 6


def test_a_run_leaves_weights_log_and_samples(tiny_config: Config, photo_folder: Path, tmp_path: Path) -> None:
    run(make(tiny_config, photo_folder, tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows] == [2, 4, 6, 8, 10, 12]
    assert load_upsampler(str(tmp_path / "model.safetensors")).config == tiny_config.upsampler
    assert (tmp_path / "samples-00000008.png").exists()


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tiny_config: Config, photo_folder: Path, tmp_path: Path
) -> None:
    whole = make(tiny_config, photo_folder, tmp_path / "whole")
    run(whole)
    run(make(tiny_config, photo_folder, tmp_path / "parts"), steps=3)
    resumed = make(tiny_config, photo_folder, tmp_path / "parts")
    resumed.resume()
    run(resumed)
    for name in ("generator", "generator_ema", "discriminator"):
        a, b = getattr(whole, name).state_dict(), getattr(resumed, name).state_dict()
        assert all(torch.equal(a[key], b[key]) for key in a), name


def test_every_parameter_of_both_players_is_trained(tiny_config: Config, photo_folder: Path, tmp_path: Path) -> None:
    trainer = make(tiny_config, photo_folder, tmp_path)
    before = {n: p.clone() for net in (trainer.generator, trainer.discriminator) for n, p in net.named_parameters()}
    run(trainer)
    for network in (trainer.generator, trainer.discriminator):
        unchanged = [n for n, p in network.named_parameters() if torch.equal(p, before[n])]
        assert not unchanged


def test_repeated_steps_on_one_batch_bring_the_picture_closer(
    tiny_config: Config, photo_folder: Path, tmp_path: Path
) -> None:
    trainer = make(tiny_config, photo_folder, tmp_path)
    phase = tiny_config.train.phases[0].model_copy(update={"images": 10_000, "generator_lr": 0.02})
    batch = next(trainer.batches(phase, 2))
    losses = [trainer.train_step(batch, phase)["g/l1"] for _ in range(80)]
    assert losses[-1] < 0.7 * losses[0]


def test_a_non_finite_term_stops_the_run_and_is_named(tiny_config: Config, photo_folder: Path, tmp_path: Path) -> None:
    trainer = make(tiny_config, photo_folder, tmp_path)
    with torch.no_grad():
        trainer.generator.stem.bias.fill_(float("nan"))
    with pytest.raises(RuntimeError, match=r"g/l1 = nan at step 0"):
        trainer.fit(lambda images, log: None)


def test_the_averaged_generator_follows_with_its_half_life(
    tiny_config: Config, photo_folder: Path, tmp_path: Path
) -> None:
    trainer = make(tiny_config, photo_folder, tmp_path)
    trainer.images_seen = 1000
    with torch.no_grad():
        for parameter in trainer.generator.parameters():
            parameter.fill_(1.0)
        for parameter in trainer.generator_ema.parameters():
            parameter.fill_(0.0)
    trainer.update_ema(10)  # the tiny config's half-life
    assert all(torch.allclose(p, torch.tensor(0.5)) for p in trainer.generator_ema.parameters())


def test_the_real_pyramid_is_the_truth_reduced(tiny_config: Config, photo_folder: Path, tmp_path: Path) -> None:
    trainer = make(tiny_config, photo_folder, tmp_path)
    hr = torch.rand(2, 3, 64, 64) * 2 - 1
    pyramid = trainer.real_pyramid(hr)
    assert [image.shape[-1] for image in pyramid] == [16, 32, 64]
    assert torch.equal(pyramid[-1], hr)


def test_wrong_captions_belong_to_another_image(tiny_config: Config, photo_folder: Path, tmp_path: Path) -> None:
    trainer = make(tiny_config, photo_folder, tmp_path)
    tokens = trainer.tower.encode(["a dog", "a red house by the sea", "snow"])
    wrong = roll(tokens)
    fields = [field.name for field in dataclasses.fields(tokens)]
    assert all(torch.equal(getattr(wrong, f)[1], getattr(tokens, f)[0]) for f in fields)
