"""Every file of configs/ builds at its published size and, made tiny, trains."""

import functools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from gigasr.cli.train import load_any_config, task_class
from gigasr.config.model import Config
from gigasr.config.training import MIN_CROPS, DegradationConfig, LossConfig
from gigasr.data.loader import LoadedBatch
from gigasr.networks.discriminator import Discriminator
from gigasr.training.adversarial import AdversarialTask
from gigasr.training.cost import count_parameters
from gigasr_base.config import BaseConfig

FOLDER = Path(__file__).parents[1] / "configs"
FILES = sorted(FOLDER.rglob("*.toml"))
ROWS = sorted((FOLDER / "ablation").glob("*.toml"))
every_config = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
BASES = [path for path in FILES if "base" in path.stem or path in ROWS]
every_row = pytest.mark.parametrize("path", ROWS, ids=lambda path: path.stem)
TEXT = {"tower": "text_lite", "pretrained": "", "tower_width": 256, "dim": 16, "num_heads": 2}
TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
ADVERSARIAL_TERMS = {"adversarial", "matching", "r1"}  # what the discriminator has terms of
OWN_TERMS = set(LossConfig.model_fields) - {"matching", "r1"}  # what the generator has terms of


@pytest.fixture(scope="module")
def clip_name(tmp_path_factory: pytest.TempPathFactory) -> str:
    import open_clip

    path = tmp_path_factory.mktemp("clip") / "gigasr-test-configs.json"
    path.write_text(json.dumps(TINY_CLIP), encoding="utf-8")
    open_clip.add_model_config(path)
    return path.stem


@functools.cache
def sizes(path: Path) -> dict[str, float]:
    """Parameters of a config's networks and their parts, in millions."""
    config = load_any_config(path, ())
    with torch.device("meta"):
        generator, discriminator = task_class(config).build_generator(config), Discriminator(config.discriminator)
    counts = count_parameters({"generator": generator, "discriminator": discriminator})
    return {name: count / 1e6 for name, count in counts.items()}


def narrow(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Levels or stages of at most 16 channels, two blocks, two kernels and one attention unit."""
    largest = {"channels": 16, "blocks": 2, "num_kernels": 2, "attention": 1}
    halved = max(block["channels"] for block in blocks) / 2
    small = [{key: min(value, largest[key]) for key, value in block.items()} for block in blocks]
    return [new | {"channels": 8 if old["channels"] <= halved else 16} for new, old in zip(small, blocks, strict=True)]


def shrink_text(text: dict[str, Any]) -> dict[str, Any]:
    return TEXT | {"depth": min(text["depth"], 1)}


def shrink(config: Any, clip_name: str) -> Any:
    """The same structure in tiny: levels, attention, banks, stages, exits and losses stay switched on."""
    data = config.model_dump()
    generator, discriminator, train = data.get("upsampler") or data["generator"], data["discriminator"], data["train"]
    generator |= {"levels": narrow(generator["levels"]), "w_dim": 16, "mapping_layers": 2}
    discriminator |= {"stages": narrow(discriminator["stages"]), "out_channels": 8}
    for network in (generator, discriminator):
        network |= {"head_dim": 8, "text": shrink_text(network["text"])}
    train["clip"] |= {"tower": clip_name, "pretrained": None}
    train["vision"] |= {"tower": clip_name, "pretrained": None, "layers": (1, 2), "channels": 8}
    train["vision"]["text"] = shrink_text(train["vision"]["text"])
    for phase in train["phases"]:
        min_crop = [min_crop for name, min_crop in MIN_CROPS.items() if phase["loss"][name]]
        phase |= {"crop": max(smallest_crop(config), *min_crop, 0), "batch_size": 2}
    return type(config).model_validate(data)


def smallest_crop(config: Any) -> int:
    """The least side that every level and stage can halve, px; LPIPS and stages take no less than 32."""
    if isinstance(config, BaseConfig):
        return config.generator.size
    return max(unit(config), 2 ** len(config.discriminator.stages), 32)


def unit(config: Config) -> int:
    """What an upsampler's crops are multiples of, px."""
    return config.upsampler.scale * 2**config.upsampler.num_down


def two_steps(task: AdversarialTask, phase_number: int) -> dict[str, float]:
    """The log of two steps on random images; R1 is due in the first one."""
    phase, log = task.train.phases[phase_number], {}
    hr = torch.rand(2, 3, phase.crop, phase.crop) * 2 - 1
    loaded = LoadedBatch(torch.arange(2), hr, ["a red circle", "two birds"])
    batch = task.make_batch(loaded, task.scale, DegradationConfig())
    for number in range(2):
        log |= {f"{number}/{name}": value for name, value in task.step([batch], phase, number).items()}
    return log


def expected_terms(loss: LossConfig) -> set[str]:
    """What the log of two steps names, the vision-aided heads' own terms aside."""
    on = {name for name, weight in loss if weight}
    with_text = ADVERSARIAL_TERMS & (on | {"adversarial"}) if on & {"adversarial", "matching"} else set()
    names = {f"g/{name}" for name in on & OWN_TERMS} | {f"d/{name}" for name in with_text}
    return {f"{number}/{name}" for name in names for number in (0, 1)} - {"1/d/r1"}


@every_config
def test_a_config_builds_and_fits_its_crops(path: Path) -> None:
    config = load_any_config(path, ())
    assert min(sizes(path)[network] for network in ("generator", "discriminator")) > 0
    crops = {phase.crop for phase in config.train.phases}
    if isinstance(config, BaseConfig):
        assert max(crops) == config.generator.size  # that they are sizes of levels is checked on reading
    else:
        assert not any(crop % unit(config) for crop in crops)


@every_config
def test_the_discriminator_reads_no_more_levels_than_the_generator_gives(path: Path) -> None:
    config = load_any_config(path, ())
    base = isinstance(config, BaseConfig)
    given = len(config.generator.levels) if base else config.upsampler.num_up
    assert config.discriminator.num_levels <= min(given, len(config.discriminator.stages))


@every_config
def test_a_tiny_form_of_it_trains_with_every_term_its_phases_switch_on(
    path: Path, clip_name: str, lpips_features: Path
) -> None:
    config = shrink(load_any_config(path, ()), clip_name)
    task = task_class(config).from_config(config, torch.device("cpu"), lpips_features)
    before = [p.clone() for p in task.generator.parameters()]
    for number, phase in enumerate(config.train.phases):
        log = two_steps(task, number)
        assert {name for name in log if "/v/" not in name} == expected_terms(phase.loss)
        assert ("0/v/adversarial" in log) == bool(phase.loss.vision)
        assert all(math.isfinite(value) for value in log.values())
    changed = [not torch.equal(a, b) for a, b in zip(before, task.generator.parameters(), strict=True)]
    assert all(changed)


@pytest.mark.parametrize(
    ("name", "network", "millions", "tolerance"),
    [
        ("upsampler_64_512", "generator", 359.1, 0.02),
        ("upsampler_128_1024", "generator", 693.0, 0.02),
        ("base_64", "generator", 652.5, 0.02),
        ("base_64", "discriminator", 381.4, 0.05),
    ],
)
def test_the_papers_models_have_their_published_size(
    name: str, network: str, millions: float, tolerance: float
) -> None:
    assert sizes(FOLDER / f"{name}.toml")[network] == pytest.approx(millions, rel=tolerance)


PUBLISHED = [27.8, 158.9, 26.2, 59.0, 59.0, 59.0, 80.2, 161.9, 161.9, 164.0, 164.0, 652.5]  # M, Table 1


@pytest.mark.parametrize(
    ("path", "millions"), list(zip(ROWS, PUBLISHED, strict=True)), ids=[path.stem for path in ROWS]
)
def test_a_row_of_the_ablation_has_its_published_size(path: Path, millions: float) -> None:
    assert sizes(path)["generator"] == pytest.approx(millions, rel=0.05)


@every_row
def test_the_head_of_a_row_gives_the_size_that_its_networks_have(path: Path) -> None:
    stated = re.search(r"# Ours: generator ([\d.]+) M parameters; discriminator ([\d.]+) M", path.read_text("utf-8"))
    counts = sizes(path)
    assert stated is not None
    assert stated.groups() == tuple(f"{counts[name]:.1f}" for name in ("generator", "discriminator"))


@every_row
def test_a_row_shows_100_000_batches_of_256(path: Path) -> None:
    (phase,) = load_any_config(path, ()).train.phases
    assert (phase.images, phase.batch_size, phase.crop) == (25_600_000, 256, 64)


def test_rows_keep_what_earlier_rows_switched_on() -> None:
    configs = [load_any_config(path, ()) for path in ROWS]
    switches = {
        4: lambda c: sum(level.attention for level in c.generator.levels),
        5: lambda c: c.train.phases[0].loss.matching,
        6: lambda c: c.train.phases[0].loss.generator_matching,
        7: lambda c: max(level.num_kernels for level in c.generator.levels) - 1,
        8: lambda c: min(level.blocks for level in c.generator.levels) - 1,
        9: lambda c: c.train.phases[0].loss.clip,
        10: lambda c: c.discriminator.num_levels - 1 and c.discriminator.head_weight,
        11: lambda c: c.train.phases[0].loss.vision,
    }
    for first, switch in switches.items():
        assert [bool(switch(config)) for config in configs] == [row >= first for row in range(1, 13)]


def test_the_last_row_has_the_networks_of_the_base_model() -> None:
    last, base = load_any_config(ROWS[-1], ()), load_any_config(FOLDER / "base_64.toml", ())
    assert (last.generator, last.discriminator) == (base.generator, base.discriminator)


@pytest.mark.parametrize("path", BASES, ids=lambda path: path.stem)
def test_a_base_model_sees_whole_pictures_as_their_captions_do(path: Path) -> None:
    assert load_any_config(path, ()).train.data.full_image
