"""The classifier of the drawn shapes reads what is drawn, at the sizes that networks are evaluated at."""

import pytest
import torch
import torch.nn.functional as F

from scripts.shapes import CAPTIONS, drawn, read


@pytest.mark.parametrize(("centred", "size"), [(False, 32), (True, 16)])
def test_the_classifier_reads_every_drawn_shape_and_colour(centred: bool, size: int) -> None:
    captions, images = drawn(4 * len(CAPTIONS), seed=2, centred=centred)
    assert [read(image) for image in F.interpolate(images, (size, size), mode="area")] == captions


def test_the_classifier_reads_through_noise() -> None:
    captions, images = drawn(len(CAPTIONS), seed=3, centred=True)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    assert [read(image) for image in images + 0.05 * noise] == captions
