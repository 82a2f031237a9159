"""Lay crops of one scene side by side: python scripts/compare_crops.py OUT X,Y,SIDE NAME=FILE ..."""

from pathlib import Path

import click
from PIL import Image, ImageDraw

CAPTION = 24  # px


def crop(path: Path, box: tuple[int, int, int], size: tuple[int, int]) -> Image.Image:
    """Cut a square out of a picture, first enlarged by bicubic to the size that the others have."""
    x, y, side = box
    with Image.open(path) as image:
        picture = image.convert("RGB")
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    return picture.crop((x, y, x + side, y + side))


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.argument("box")
@click.argument("pictures", nargs=-1, required=True)
def main(output: Path, box: str, pictures: tuple[str, ...]) -> None:
    """Write OUTPUT: the crop BOX (x,y,side in px of the largest picture) of each NAME=FILE, with its name below."""
    x, y, side = (int(part) for part in box.split(","))
    named = [picture.split("=", 1) for picture in pictures]
    size = max(Image.open(path).size for _, path in named)
    sheet = Image.new("RGB", (side * len(named), side + CAPTION), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (name, path) in enumerate(named):
        sheet.paste(crop(Path(path), (x, y, side), size), (i * side, 0))
        draw.text((i * side + 8, side + 6), name, fill="black")
    sheet.save(output, quality=92)


if __name__ == "__main__":
    main()
