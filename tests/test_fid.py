"""FID: closed forms, the formula of torch-fidelity, and the networks that give features."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gigasr.evaluation.image_sets import collect_features, list_images
from gigasr.files.image_writer import write_image
from gigasr.files.picture import Picture
from gigasr.metrics import FeatureSet, FrozenFeatures, frechet_distance, inception_score, patches


def normal(count: int, mean: float, std: float, seed: int, dim: int = 24) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(7)) / dim**0.5
    return torch.randn(count, dim, generator=rng) @ mixing * std + mean


@pytest.mark.parametrize("count", [10, 24, 25, 400])
def test_the_distance_is_that_of_torch_fidelity_for_sets_smaller_and_larger_than_the_features(count: int) -> None:
    metric_fid = pytest.importorskip("torch_fidelity.metric_fid", reason="pip install 'gigasr[eval]'")
    x, y = normal(count, 0.0, 1.0, 0), normal(count + 3, 0.2, 1.3, 1)
    stats = [{"mu": s.mean(0).double().numpy(), "sigma": np.cov(s.double().numpy(), rowvar=False)} for s in (x, y)]
    expected = metric_fid.fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-5)


def test_equal_sets_have_distance_0_and_a_shift_gives_its_square() -> None:
    x = normal(50, 0.0, 1.0, 0)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + 2.0) == pytest.approx(24 * 4, rel=1e-5)


def test_one_image_is_no_set() -> None:
    with pytest.raises(ValueError, match="frechet_distance: expected two sets .* use more images"):
        frechet_distance(torch.rand(1, 4), torch.rand(5, 4))


def test_tiles_are_the_squares_that_fit() -> None:
    image = torch.arange(3 * 9 * 11.0).view(3, 9, 11)
    cut = patches(image, 4)
    assert cut.shape == (4, 3, 4, 4)
    assert torch.equal(cut[3], image[:, 4:8, 4:8])


def test_a_set_has_tiles_only_of_images_large_enough(lpips_features: Path) -> None:
    small, large = (FeatureSet(FrozenFeatures(lpips_features)) for _ in range(2))
    for seed in range(2):
        image = torch.rand(3, 256, 512, generator=torch.Generator().manual_seed(seed))
        small.add(image[:, :64, :64])
        large.add(image)
    assert list(small.distances(small)) == ["fid_squeeze"]
    assert large.distances(large) == pytest.approx({"fid_squeeze": 0, "patch_fid_squeeze": 0}, abs=1e-4)


def test_features_do_not_depend_on_the_batch(lpips_features: Path) -> None:
    features, images = FrozenFeatures(lpips_features), torch.rand(2, 3, 40, 60)
    assert features(images).shape == (2, 512)
    torch.testing.assert_close(features(images)[1:], features(images[1:]), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights of torch-fidelity's Inception."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="pip install 'gigasr[eval]'")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(network.state_dict(), path)
    return path


def test_an_inception_file_gives_the_features_of_torch_fidelity(inception_file: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    levels = torch.randint(0, 256, (2, 3, 299, 299), generator=torch.Generator().manual_seed(0))
    features = FrozenFeatures(inception_file)
    expected = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(inception_file))(levels.byte())[0]
    assert features.name == "inception"
    torch.testing.assert_close(features(levels / 255), expected, rtol=1e-4, atol=1e-5)


def test_two_folders_have_the_distance_and_the_score_that_torch_fidelity_gives_them(
    inception_file: Path, tmp_path: Path
) -> None:
    torch_fidelity = pytest.importorskip("torch_fidelity", reason="pip install 'gigasr[eval]'")
    for name, low in (("a", 0.0), ("b", 0.3)):
        (tmp_path / name).mkdir()
        for i in range(3):
            rng = torch.Generator().manual_seed(i + 100 * (name == "b"))
            write_image(tmp_path / name / f"{i}.png", Picture(torch.rand(3, 299, 299, generator=rng) * (1 - low) + low))
    folders = [str(tmp_path / name) for name in "ab"]
    more = {"feature_extractor_weights_path": str(inception_file), "cuda": False, "verbose": False, "cache": False}
    more |= {"samples_shuffle": False, "save_cpu_ram": True, "isc_splits": 1}
    expected = torch_fidelity.calculate_metrics(input1=folders[0], input2=folders[1], fid=True, isc=True, **more)
    features = FrozenFeatures(inception_file)
    a, b = (collect_features(sorted(list_images(Path(folder)), key=str), 299, features) for folder in folders)
    found = a.distances(b)
    assert found["fid"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)
    assert found["inception_score"] == pytest.approx(expected["inception_score_mean"], rel=1e-5)


def test_the_inception_score_of_sure_and_unsure_answers() -> None:
    sure = torch.eye(5).repeat(4, 1) * 1000
    assert inception_score(sure, 1) == pytest.approx(5)
    assert inception_score(torch.zeros(20, 5)) == pytest.approx(1)


def test_other_files_are_one_clear_line(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="fid: expected torch-fidelity's Inception or torchvision's SqueezeNet"):
        FrozenFeatures(tmp_path / "other.pth")
    with pytest.raises(ValueError, match="expected weights, got"):
        FrozenFeatures(tmp_path / "broken.pth")
