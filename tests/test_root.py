"""The root removes damage and keeps colours; the pyramid ends at smaller scales; both from training to files."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import save_upsampler
from pydantic import ValidationError
from torch import Tensor

from gigasr.config.model import Config
from gigasr.config.networks import UpsamplerConfig
from gigasr.config.training import RestorationConfig
from gigasr.data.folder import FolderSource, read_folder
from gigasr.data.samples import CropSchedule
from gigasr.files.picture import Picture
from gigasr.inference.devices import ExecutionPlan
from gigasr.inference.engine import BodyTailEngine
from gigasr.inference.row_stream import RowStream
from gigasr.models.checkpoint import load_weights, save_weights
from gigasr.models.native import PromptedUpsampler
from gigasr.models.onnx_export import export_onnx
from gigasr.models.zoo import load_model
from gigasr.networks.ops import downsample_bicubic, filter_axes, gaussian_taps, resize
from gigasr.networks.upsampler import Upsampler, remove_low_frequencies
from gigasr.pipeline import SuperResolver
from gigasr.training.adversarial import AdversarialTask
from gigasr.training.trainer import Trainer


@pytest.fixture(scope="module")
def config(tiny_config: Config) -> UpsamplerConfig:
    return tiny_config.upsampler.model_copy(update={"restores": True, "early_scales": (2, 4)})


@pytest.fixture(scope="module")
def network(config: UpsamplerConfig) -> Upsampler:
    """A network whose root layer does something."""
    torch.manual_seed(0)
    network = Upsampler(config).eval().requires_grad_(False)
    assert network.to_root is not None
    network.to_root.bank.normal_(std=0.3)
    return network


@pytest.fixture(scope="module")
def weights(network: Upsampler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("root") / "root.safetensors"
    save_weights(path, network.state_dict(), "upsampler", network.config.model_dump(mode="json"), torch.float32)
    return path


@pytest.fixture(scope="module")
def model(network: Upsampler) -> PromptedUpsampler:
    return PromptedUpsampler(network)


def picture(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.inference_mode()
def restored(model: PromptedUpsampler, lr: Tensor, restore: float = 1.0, **place: int) -> tuple[Tensor, Tensor]:
    """The root and the result of an engine that works on strips."""
    engine = model.engine("noisy", 3, ExecutionPlan(**place))
    assert isinstance(engine, BodyTailEngine)
    root, strips = engine.restored(RowStream.from_tensor(lr), 3, restore)
    reader = root.tee()
    result = torch.cat(list(strips), dim=2)
    return torch.cat(list(reader), dim=2), result


def test_a_gaussian_filter_equals_a_naive_loop() -> None:
    x, taps = torch.rand(1, 2, 6, 5, dtype=torch.float64), gaussian_taps(1.0, 2)
    y = filter_axes(x, taps)
    for row in range(6):
        for column in range(5):
            total = sum(
                float(taps[i + 2] * taps[j + 2]) * x[0, :, min(max(row + i, 0), 5), min(max(column + j, 0), 4)]
                for i in range(-2, 3)
                for j in range(-2, 3)
            )
            torch.testing.assert_close(y[0, :, row, column], total)


def test_a_constant_residual_leaves_the_colours(network: Upsampler) -> None:
    constant = torch.tensor([0.3, -0.2, 0.9]).view(1, 3, 1, 1).expand(1, 3, 20, 30)
    assert remove_low_frequencies(constant).abs().max() < 1e-6


@pytest.mark.parametrize(("period", "least", "most"), [(64, 0.06, 0.08), (32, 0.25, 0.28), (8, 0.98, 1.0)])
def test_a_residual_loses_its_low_frequencies(period: int, least: float, most: float) -> None:
    wave = torch.sin(2 * math.pi * torch.arange(512) / period).expand(1, 3, 64, -1)
    kept = remove_low_frequencies(wave)[..., 128:-128].std() / wave[..., 128:-128].std()
    assert least < kept < most
    expected = 1 - math.exp(-2 * (math.pi * 4.0 / period) ** 2)  # of a Gaussian of 4 px
    assert abs(float(kept) - expected) < 0.01


def test_colours_of_large_areas_stay_whatever_the_network_adds(model: PromptedUpsampler) -> None:
    lr = picture(128, 96)
    root, _ = restored(model, lr)
    assert (root - lr).abs().mean() > 0.03
    areas = [torch.nn.functional.avg_pool2d(x, 96)[0, :, 0, 0] for x in (root, lr)]
    torch.testing.assert_close(*areas, atol=0.02, rtol=0)


@pytest.mark.parametrize("strip", [3, 20])
def test_the_root_on_strips_is_that_of_the_whole_network(
    model: PromptedUpsampler, network: Upsampler, strip: int
) -> None:
    lr = picture(64, 48)
    w, text = network.condition(
        torch.randn(1, network.config.z_dim, generator=torch.Generator().manual_seed(3)), model.tower.encode(["noisy"])
    )
    engine = model.engine("noisy", 3, ExecutionPlan(strip=strip))
    noisy = torch.cat(list(engine.noisy(RowStream.from_tensor(lr), 3)), dim=2)
    features = network.body(noisy, w, text)
    root = network.root(features, lr, w)
    found, result = restored(model, lr, strip=strip)
    torch.testing.assert_close(found, root, atol=1e-5, rtol=0)
    torch.testing.assert_close(result, network.tail(features, root, w, text)[-1], atol=1e-4, rtol=0)


def test_restore_scales_what_the_root_adds(model: PromptedUpsampler) -> None:
    lr = picture(24, 32)
    whole, half = (restored(model, lr, restore)[0] - lr for restore in (1.0, 0.5))
    torch.testing.assert_close(half, whole / 2, atol=1e-6, rtol=0)


def test_without_restoring_the_result_is_that_of_the_network_without_a_root_layer(
    weights: Path, network: Upsampler, tmp_path: Path
) -> None:
    plain = network.config.model_copy(update={"restores": False})
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("to_root.")}
    path = tmp_path / "plain.safetensors"
    save_weights(path, state, "upsampler", plain.model_dump(mode="json"), torch.float32)
    source = Picture(picture(20, 30)[0] / 2 + 0.5)
    resolvers = [SuperResolver.from_pretrained(str(each), precision="fp32") for each in (weights, path)]
    a, b = (resolver.upscale(source, "noisy", scale=8, restore=0.0).rgb for resolver in resolvers)
    assert torch.equal(a, b)
    assert not torch.equal(a, resolvers[0].upscale(source, "noisy", scale=8).rgb)
    assert torch.equal(b, resolvers[1].upscale(source, "noisy", scale=8).rgb)


def test_the_result_reduced_gives_the_root_back(weights: Path, model: PromptedUpsampler) -> None:
    lr = torch.nn.functional.avg_pool2d(picture(44, 52), 5, 1, 2, count_include_pad=False) / 2
    resolver = SuperResolver(model, precision="fp32")
    result = resolver.upscale(Picture(lr[0] / 2 + 0.5), "noisy", scale=8, seed=3).rgb * 2 - 1
    root, _ = restored(model, lr)
    inside = (root.abs() < 0.8).all(dim=1)[0]  # values beyond black and white are clipped
    error = (downsample_bicubic(result[None], 8) - root)[0].abs()
    assert error[:, inside].mean() < 0.005 < (downsample_bicubic(result[None], 8) - lr).abs().mean()


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_pyramid_ends_at_each_scale(network: Upsampler, model: PromptedUpsampler, scale: int) -> None:
    lr, z = picture(16, 24), torch.zeros(1, network.config.z_dim)
    tokens = model.tower.encode(["a dog"])
    whole, ending = network(lr, z, tokens), network.ending_at(scale)
    pyramid = ending(lr, z, tokens)
    assert (ending.scale, ending.scales) == (scale, [s for s in (2, 4, 8) if s <= scale])
    assert len(pyramid) == scale.bit_length() and pyramid[-1].shape == (1, 3, 16 * scale, 24 * scale)
    for a, b, c in zip(pyramid, whole, network(lr, z, tokens, scale=scale), strict=False):
        assert torch.equal(a, b) and torch.equal(a, c)


def test_a_scale_that_was_not_trained_is_no_end(network: Upsampler, tiny_config: Config) -> None:
    with pytest.raises(ValueError, match=r"scale: expected one of \[2, 4, 8\], got 3"):
        network.ending_at(3)
    with pytest.raises(ValidationError, match="early_scales: expected values of"):
        UpsamplerConfig.model_validate(network.config.model_dump() | {"early_scales": [8]})


@pytest.mark.parametrize(("scale", "level"), [(2, 2), (3, 4), (4, 4), (5, 8)])
def test_a_picture_is_upscaled_by_the_smallest_level_that_suffices(
    model: PromptedUpsampler, scale: int, level: int
) -> None:
    source = Picture(torch.nn.functional.avg_pool2d(picture(36, 40), 5, 1, 2, count_include_pad=False)[0] / 2 + 0.5)
    resolver = SuperResolver(model, precision="fp32")
    result = resolver.upscale(source, scale=scale, fidelity=0.0).rgb
    assert list(resolver.engines) == [level]
    ended = SuperResolver(PromptedUpsampler(model.network.ending_at(level)), precision="fp32")
    expected = ended.upscale(source, scale=level, fidelity=0.0).rgb
    if scale == level:
        assert torch.equal(result, expected)
    assert result.shape[1:] == (36 * scale, 40 * scale)
    assert (resize(expected[None], (72, 80)) - resize(result[None], (72, 80))).abs().mean() < 0.02


def test_only_the_first_pass_restores(model: PromptedUpsampler, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[float] = []
    plain = BodyTailEngine.restored

    def noting(self: BodyTailEngine, lr: RowStream, seed: int, restore: float = 1.0) -> object:
        reported.append(restore)
        return plain(self, lr, seed, restore)

    monkeypatch.setattr(BodyTailEngine, "restored", noting)
    SuperResolver(model).upscale(Picture(torch.rand(3, 9, 8)), scale=16, restore=0.75)
    assert reported == [0.75, 0.0]


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_restore_has_a_range(model: PromptedUpsampler, value: float) -> None:
    with pytest.raises(ValueError, match="restore: expected 0..1"):
        SuperResolver(model).upscale(Picture(torch.rand(3, 9, 8)), restore=value)


def test_an_onnx_file_restores_as_its_network_does(weights: Path, tmp_path: Path) -> None:
    export_onnx(load_model(str(weights)), "root.safetensors", tmp_path / "root.onnx", "noisy", 3)
    source = Picture(picture(40, 56)[0] / 2 + 0.5)
    ours, theirs = (
        SuperResolver.from_pretrained(str(path), precision="fp32") for path in (weights, tmp_path / "root.onnx")
    )
    for restore in (1.0, 0.0):
        a = ours.upscale(source, "noisy", scale=8, seed=3, restore=restore).rgb
        torch.testing.assert_close(a, theirs.upscale(source, scale=8, seed=3, restore=restore).rgb, atol=2e-3, rtol=0)


@pytest.fixture
def train(tiny_config: Config, photo_folder: Path, lpips_features: Path, tmp_path: Path) -> Callable[..., Trainer]:
    """Build a trainer of a restoring config whose adversarial phase takes turns between the scales."""

    def build(folder: str = "run", **upsampler: object) -> Trainer:
        table = tiny_config.model_dump()
        table["upsampler"] |= {"restores": True, "early_scales": [2, 4]} | upsampler
        table["discriminator"]["num_levels"] = 2
        table["train"]["degradation"] = {"restoration": {"clean": 0.0, "contrary": 0.0}}
        for phase in table["train"]["phases"]:
            phase["early"] = [{"scale": 4, "crop": 64}, {"scale": 2, "crop": 32}]
            phase["loss"]["root"] = 2.0
        config = Config.model_validate(table)
        task = AdversarialTask.from_config(config, torch.device("cpu"), lpips_features)
        source = FolderSource(tuple(read_folder(photo_folder, config.train.data, "train")), config.train.data)
        return Trainer(task, source, tmp_path / folder)

    return build


def test_a_phase_takes_turns_between_the_scales(train: Callable[..., Trainer]) -> None:
    trainer = train()
    phase = trainer.train.phases[1]
    trainer.phase_start = trainer.images_seen = 4
    batches = [batch for batch, _ in zip(trainer.steps(phase, 12), range(4), strict=False)]
    seen = []
    for (batch,) in batches:
        seen.append((batch.scale, batch.hr.shape[-1], batch.lr.shape[-1], batch.root.shape[-1]))
    assert seen == [(8, 64, 8, 8), (4, 64, 16, 16), (2, 32, 16, 16), (8, 64, 8, 8)]


def test_training_moves_every_parameter_of_the_root_layer(train: Callable[..., Trainer]) -> None:
    trainer = train()
    before = {name: p.clone() for name, p in trainer.task.generator.named_parameters() if "to_root" in name}
    logs: list[dict[str, float]] = []
    assert trainer.fit(lambda images, log: logs.append(log))
    assert all("g/root" in log for log in logs)
    assert {key.split("/")[1] for key in logs[-1]} >= {"root", "adversarial", "matching"}
    after = dict(trainer.task.generator.named_parameters())
    moved = {name for name, p in before.items() if not torch.equal(p, after[name])}
    assert {"to_root.bank", "to_root.to_styles.weight", "to_root.to_styles.bias"} <= moved


def test_a_phase_of_the_root_alone_trains_the_body_alone(train: Callable[..., Trainer]) -> None:
    trainer = train()
    phase = trainer.train.phases[0]
    alone = {"l1": 0.0, "lpips": 0.0, "root": 1.0, "r1": 0.0}
    phase = phase.model_copy(update={"loss": phase.loss.model_copy(update=alone)})
    before = {name: p.clone() for name, p in trainer.task.generator.named_parameters()}
    batch = next(iter(trainer.steps(phase, 4)))
    assert set(trainer.task.step(batch, phase, 0)) == {"g/root"}
    moved = {name for name, p in trainer.task.generator.named_parameters() if not torch.equal(p, before[name])}
    assert "to_root.bank" in moved
    assert not any(name.startswith(("to_rgb", "levels.3", "levels.4", "levels.5")) for name in moved)


def test_a_run_starts_from_weights_without_a_root_and_from_another_runs_discriminator(
    train: Callable[..., Trainer], tiny_config: Config, tmp_path: Path
) -> None:
    first = train("first")
    first.save()
    plain = save_upsampler(tmp_path / "plain.safetensors", tiny_config.upsampler)
    second = train("second")
    second.start_from(plain)
    second.start_discriminator_from(first.folder / "discriminator.safetensors")
    state = load_weights(plain, "upsampler")[0]
    for network in (second.task.generator, second.task.generator_ema):
        assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in state.items())
        assert not network.to_root.bank.any()
    for name, tensor in first.task.discriminator.state_dict().items():
        torch.testing.assert_close(
            second.task.discriminator.state_dict()[name], tensor, atol=1e-7, rtol=1e-3
        )  # half precision


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("upsampler", {"restores": False}, "loss.root: expected 0 as upsampler.restores is false"),
        ("upsampler", {"early_scales": [4]}, "train.phases.early.scale: expected one of"),
        ("discriminator", {"num_levels": 3}, "discriminator.num_levels: expected at most the 2"),
        ("phase", {"images": 7}, "train.phases.images: expected a multiple of batch_size 2"),
        ("phase", {"early": [{"scale": 4, "crop": 40}]}, "train.phases.crop: expected a multiple of 16 px"),
    ],
)
def test_configs_that_contradict_themselves_are_refused(
    train: Callable[..., Trainer], table: str, change: dict[str, object], message: str
) -> None:
    tables = train().task.config.model_dump()
    (tables["train"]["phases"][0] if table == "phase" else tables[table]).update(change)
    with pytest.raises(ValidationError, match=message):
        Config.model_validate(tables)


def test_damaged_samples_keep_what_their_words_ask_for(photo_folder: Path, tiny_config: Config) -> None:
    """With contrary words the input is the truth, and the high-res image shows the input's damage."""
    data = tiny_config.train.data.model_copy(update={"num_workers": 0})
    source = FolderSource(tuple(read_folder(photo_folder, data, "train")), data)
    asked = {"clean": 0.0, "words": 1.0, "contrary": 1.0}
    plain = next(iter(source.batches(CropSchedule(64, 4), 8, 0, 8, 0)))
    kept, removed = (
        next(iter(source.batches(CropSchedule(64, 4, restoration=RestorationConfig(**table)), 8, 0, 8, 0)))
        for table in (asked, asked | {"contrary": 0.0, "keep_grain": 0.0})
    )
    assert kept.lr is not None and kept.root is not None and removed.lr is not None and removed.root is not None
    assert torch.equal(kept.lr, kept.root)
    assert torch.equal(removed.hr, plain.hr) and not torch.equal(kept.hr, plain.hr)
    assert (removed.root - removed.lr).abs().mean() > 0.01
    damage = downsample_bicubic(kept.hr - plain.hr, 4)
    assert (damage - (kept.root - removed.root)).abs().mean() < 0.35 * (kept.root - removed.root).abs().mean()
