"""Base models are evaluated over truncations against real images."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from gigasr.data.captions import Sample
from gigasr.metrics import FeatureSet, FrozenFeatures
from gigasr_base.config import load_base_config
from gigasr_base.evaluation import evaluate_base, load_real, retrieval
from gigasr_base.generator import Generator
from gigasr_base.pipeline import TextToImage


@pytest.fixture(scope="module")
def base_model() -> TextToImage:
    torch.manual_seed(0)
    config = load_base_config(Path(__file__).parents[1] / "configs" / "base_tiny.toml").generator
    return TextToImage(Generator(config).eval(), "cpu", "fp32")


def test_real_images_are_squared_reduced_and_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (48, 32), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (8, 0, 40, 16))
    image.save(tmp_path / "a.png")
    real = load_real(Sample(tmp_path / "a.png", ("",)), 16)
    assert real.shape == (3, 16, 16)
    torch.testing.assert_close(real[:, 2, 8], torch.tensor([1.0, 0, 0]))
    torch.testing.assert_close(real[:, -2, 8], torch.ones(3))


def test_every_truncation_is_a_row_with_its_distance_and_a_sheet(
    base_model: TextToImage, photo_folder: Path, lpips_features: Path
) -> None:
    samples = {path.name: Sample(path, (path.stem,)) for path in sorted(photo_folder.glob("*.png"))}
    seen: list[int] = []
    features = FrozenFeatures(lpips_features)
    found = evaluate_base({"tiny": base_model}, samples, (1.0, 0.0), 3, features, None, seen.append)
    assert list(found.table) == list(found.sheets) == ["tiny, truncation 1", "tiny, truncation 0"]
    assert [list(row) for row in found.table.values()] == [["truncation", "fid_squeeze", "retrieval", "seconds"]] * 2
    assert {row: list(images) for row, images in found.images.items()} == dict.fromkeys(found.table, list(samples))
    first = (base_model.generate([next(iter(samples.values())).captions[0]], [3])[0] * 255).round().byte()
    assert torch.equal(found.sheets["tiny, truncation 1"][:, 2:18, 2:18], first)
    assert seen == [10] * 10


def test_retrieval_finds_the_images_of_the_captions(lpips_features: Path) -> None:
    real, fake = (FeatureSet(FrozenFeatures(lpips_features)) for _ in range(2))
    for seed in range(12):
        image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed))
        real.add(image)
        fake.add(image)
    assert retrieval(fake, real) == {"retrieval": 1.0}
    fake.whole = fake.whole[6:] + fake.whole[:6]
    assert retrieval(fake, real)["retrieval"] < 1
    assert retrieval(FeatureSet(None), FeatureSet(None)) == {}
