"""Sets of images are brought to squares as the published evaluation does."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from gigasr.evaluation.image_sets import collect_features, list_images, load_square
from gigasr.files.image_writer import write_image
from gigasr.files.picture import Picture
from gigasr.metrics import FrozenFeatures


def test_the_middle_square_is_reduced_by_lanczos(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", Picture(torch.rand(3, 40, 60)))
    with Image.open(tmp_path / "a.png") as image:
        expected = image.crop((10, 0, 50, 40)).resize((16, 16), Image.Resampling.LANCZOS)
    torch.testing.assert_close(load_square(tmp_path / "a.png", 16), pil_to_tensor(expected) / 255)


def test_a_folder_is_listed_with_what_lies_below_it_and_an_empty_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/x.JPEG", "a.png", "notes.txt", "._a.png", "b/.x.png"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "x.JPEG"]
    with pytest.raises(ValueError, match="expected a folder with images, got none"):
        list_images(tmp_path / "c")


def test_a_set_has_no_distance_to_itself(photo_folder: Path, lpips_features: Path) -> None:
    seen: list[int] = []
    features, paths = FrozenFeatures(lpips_features), list_images(photo_folder)
    found = collect_features(paths, 32, features, seen.append)
    assert seen == [5] * 5
    assert found.distances(collect_features(paths, 32, features)) == pytest.approx({"fid_squeeze": 0}, abs=1e-4)
