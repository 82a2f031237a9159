"""Show what training does to its low-res inputs: python scripts/show_degradations.py FOLDER -o grid.png"""

from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from gigasr.config.training import DegradationConfig
from gigasr.data.degradation import degrade
from gigasr.files.formats import is_image_file
from gigasr.pixels import signed_to_uint8, uint8_to_signed

CAPTION = 24  # px
PLAIN, CAMERA, STRONG = DegradationConfig(), DegradationConfig(camera=1.0), DegradationConfig(second_order=1.0)
COLUMNS = (("bicubic", PLAIN), ("camera", CAMERA), *((f"second order {i}", STRONG) for i in range(1, 6)))


def centre(path: Path, side: int) -> Image.Image:
    """returns: the largest square in the middle of the picture, at side x side px"""
    with Image.open(path) as image:
        return ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.BICUBIC)


def to_tensor(picture: Image.Image) -> Tensor:
    """returns: [1, 3, H, W] in [-1, 1]"""
    return uint8_to_signed(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None])


def enlarged(lr: Tensor, side: int) -> Image.Image:
    """lr: [1, 3, h, w] in [-1, 1] -> side x side px, each pixel a square"""
    levels = signed_to_uint8(lr[0].permute(1, 2, 0))
    return Image.fromarray(levels.numpy()).resize((side, side), Image.Resampling.NEAREST)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--scale", default=8, show_default=True)
@click.option("--crop", default=512, show_default=True, help="px, a multiple of the scale")
@click.option("--count", default=6, show_default=True, help="Images, spread over the folder.")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(folder: Path, scale: int, crop: int, count: int, seed: int, output: Path) -> None:
    """Write a grid: one image of FOLDER per row; the truth, then each way to make its low-res input."""
    paths = sorted(path for path in folder.iterdir() if is_image_file(path))
    paths = paths[:: max(1, len(paths) // count)][:count]
    sheet = Image.new("RGB", (crop * (1 + len(COLUMNS)), crop * len(paths) + CAPTION), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(["truth", *(name for name, _ in COLUMNS)]):
        draw.text((column * crop + 8, 2), name, fill="black", font_size=18)
    for row, path in enumerate(paths):
        truth = centre(path, crop)
        sheet.paste(truth, (0, row * crop + CAPTION))
        for column, (_, config) in enumerate(COLUMNS):
            rng = torch.Generator().manual_seed((seed * count + row) * len(COLUMNS) + column)
            lr = degrade(to_tensor(truth), scale, config, [rng])
            sheet.paste(enlarged(lr, crop), ((column + 1) * crop, row * crop + CAPTION))
    sheet.save(output)


if __name__ == "__main__":
    main()
