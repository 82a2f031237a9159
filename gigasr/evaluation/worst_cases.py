"""The worst images of an evaluation, as crops of one place from every model."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from gigasr.pixels import to_uint8

SIDE = 256  # px; of the crops
INPUT, TRUTH = "input", "truth"  # crops beside those of the rows


@dataclass
class WorstCase:
    """Crops of one place of an image."""

    image: str
    prompt: str  # of the first row
    score: float  # of the first row
    corner: tuple[int, int]  # (top, left), px
    crops: dict[str, Tensor]  # name -> uint8 [3, h, w]: inputs (nearest neighbour), the truth, each row's result


def worst_corner(result: Tensor, truth: Tensor) -> tuple[int, int]:
    """Find the crop with the largest mean error.

    result, truth: [3, H, W]  in [0, 1]
    returns: (top, left), px
    """
    error = (result - truth).abs().mean(dim=0)[None, None]
    height, width = error.shape[2:]
    side, step = (min(SIDE, height), min(SIDE, width)), 16
    means = F.avg_pool2d(error, side, stride=step)[0, 0]
    row, column = divmod(int(means.argmax()), means.shape[1])
    return row * step, column * step


class WorstCases:
    """Keeps the images on which the first row does worst: by LPIPS, or by PSNR where there is no LPIPS."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.cases: dict[str, WorstCase] = {}
        self.first: str | None = None  # the row whose metrics decide

    def update(
        self,
        row: str,
        input_name: str,
        image: str,
        prompt: str,
        metrics: dict[str, float],
        pictures: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """Take in a result; pictures are the result, the truth and the low-res image, [3, H, W] in [0, 1] each."""
        result, truth, low_res = pictures
        self.first = self.first or row
        if row == self.first:
            score = metrics["lpips"] if "lpips" in metrics else -metrics["psnr_y"]
            self.cases[image] = WorstCase(image, prompt, score, worst_corner(result, truth), {})
            worst = sorted(self.cases.values(), key=lambda case: -case.score)[: self.number]
            self.cases = {case.image: case for case in worst}
        if image in self.cases:
            case = self.cases[image]
            upscaled = F.interpolate(low_res[None], truth.shape[1:], mode="nearest")[0]
            case.crops.setdefault(input_name, crop_8bit(upscaled, case.corner))
            case.crops.setdefault(TRUTH, crop_8bit(truth, case.corner))
            case.crops[row] = crop_8bit(result, case.corner)


def crop_8bit(image: Tensor, corner: tuple[int, int]) -> Tensor:
    """image: [3, H, W] in [0, 1] -> uint8 [3, h, w], at most SIDE px a side"""
    top, left = corner
    crop = image[:, top : top + SIDE, left : left + SIDE]
    return to_uint8(crop)
