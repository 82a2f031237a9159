"""The worst images of an evaluation: the same crop from the result of every model."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from gigasr.pixels import to_uint8

SIDE = 256  # px; of the crops
INPUT, TRUTH = "input", "truth"  # names of the crops without a row


@dataclass
class WorstCase:
    """An image with a poor result, as crops at its worst place."""

    image: str
    prompt: str  # of the first row
    score: float  # of the first row
    corner: tuple[int, int]  # (top, left), px
    crops: dict[str, Tensor]  # name -> uint8 [3, h, w]: inputs (nearest neighbour), the truth, each row's result


def worst_corner(result: Tensor, truth: Tensor) -> tuple[int, int]:
    """Find the crop with the largest mean absolute error, in steps of 16 px.

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
    """The images with the worst results of the first row.

    LPIPS ranks the images, or PSNR-Y if LPIPS is not measured.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.cases: dict[str, WorstCase] = {}
        self.first: str | None = None  # the row that ranks the images

    def update(
        self,
        row: str,
        input_name: str,
        image: str,
        prompt: str,
        metrics: dict[str, float],
        pictures: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """Offer a result; its crops are kept if the image is among the worst.

        pictures: result [3, H, W], truth [3, H, W] and low-res input [3, h, w], in [0, 1]
        """
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
