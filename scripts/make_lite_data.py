"""The training data of upsampler_lite: sharp photographs, sheets of icons, drawn graphics with letters.

python scripts/make_lite_data.py photos512 photos512b emoji128 runs/lite_data
gigasr train upsampler_lite --data runs/lite_data --lpips-features FILE -o runs/upsampler_lite
"""

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import click
from PIL import Image, ImageDraw, ImageFont

from gigasr.data import captions

SIZE = 512  # px; side of everything that is written
FINER = 2  # graphics are drawn at this multiple and reduced
COLOURS = ("white", "black", "gray", "red", "green", "blue", "gold", "orange", "purple", "teal", "pink", "brown")
SHAPES = ("ellipse", "rectangle", "polygon", "stroke", "word")
LETTERS = "aabcdeeefghiiklmnooprrssttuvwyABCDEFGHKLMNOPRSTW0123456789"


def read_rows(folder: Path, **wanted: Any) -> list[dict[str, Any]]:
    """The lines of a captions.jsonl whose fields have these values."""
    rows = (row.fields for row in captions.read_rows(folder / "captions.jsonl"))
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def icon_sheet(folder: Path, rows: list[dict[str, Any]]) -> Image.Image:
    """Sixteen icons of 128 px side by side."""
    sheet = Image.new("RGB", (SIZE, SIZE), "white")
    for i, row in enumerate(rows):
        with Image.open(folder / row["file"]) as icon:
            sheet.paste(icon.convert("RGB"), (i % 4 * SIZE // 4, i // 4 * SIZE // 4))
    return sheet


def point(rng: random.Random) -> tuple[float, float]:
    """Anywhere on the canvas, px."""
    return rng.uniform(0, SIZE * FINER), rng.uniform(0, SIZE * FINER)


def curve(rng: random.Random, steps: int = 24) -> list[tuple[float, float]]:
    """Points of a quadratic Bezier curve."""
    a, b, c = point(rng), point(rng), point(rng)
    shares = [i / steps for i in range(steps + 1)]
    return [
        ((1 - t) ** 2 * a[0] + 2 * t * (1 - t) * b[0] + t * t * c[0],
         (1 - t) ** 2 * a[1] + 2 * t * (1 - t) * b[1] + t * t * c[1])
        for t in shares
    ]  # fmt: skip


def draw_shape(brush: ImageDraw.ImageDraw, shape: str, colour: str, rng: random.Random) -> None:
    """One filled or outlined shape, or a word."""
    size = math.exp(rng.uniform(math.log(24), math.log(320))) * FINER
    x, y = point(rng)
    box = (x - size / 2, y - size * rng.uniform(0.2, 0.5), x + size / 2, y + size * rng.uniform(0.2, 0.5))
    width = round(rng.uniform(2, 12) * FINER)
    style = {"fill": colour} if rng.random() < 0.6 else {"outline": colour, "width": width}
    if shape == "ellipse":
        brush.ellipse(box, **style)
    elif shape == "rectangle":
        brush.rounded_rectangle(box, rng.choice((0, size / 8)), **style)
    elif shape == "polygon":
        corners = [point(rng) for _ in range(3)]
        brush.polygon([(x + (a - x) * size / 1000, y + (b - y) * size / 1000) for a, b in corners], **style)
    elif shape == "stroke":
        brush.line(curve(rng), colour, width, joint="curve")
    else:
        word = "".join(rng.choice(LETTERS) for _ in range(rng.randint(2, 9)))
        brush.text((x, y), word, colour, ImageFont.load_default(size / 2.5), anchor="mm")


def draw_graphic(rng: random.Random) -> tuple[Image.Image, str]:
    """returns: some shapes and words on a flat ground, and a caption that names the first of them"""
    ground = rng.choice(COLOURS)
    image = Image.new("RGB", (SIZE * FINER, SIZE * FINER), ground)
    brush = ImageDraw.Draw(image)
    drawn = []
    for _ in range(rng.randint(8, 40)):
        shape, colour = rng.choice(SHAPES), rng.choice([c for c in COLOURS if c != ground])
        draw_shape(brush, shape, colour, rng)
        drawn.append(f"a {colour} {shape}")
    named = " and ".join(dict.fromkeys(drawn[-3:]))
    return image.resize((SIZE, SIZE), Image.Resampling.BOX), f"a flat drawing of {named} on {ground}"


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.argument("icons", type=click.Path(exists=True, path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--sharpness", default=0.3, show_default=True, help="Least of the photographs'.")
@click.option("--sheets", default=60, show_default=True)
@click.option("--graphics", default=80, show_default=True)
def main(photos: tuple[Path, ...], icons: Path, output: Path, sharpness: float, sheets: int, graphics: int) -> None:
    """Write a folder of images with captions.jsonl; photographs of the validation split stay validation."""
    output.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    kept = []
    for folder in photos:
        for row in read_rows(folder):
            if row["split"] == "val" or row["sharpness"] >= sharpness:
                name = f"{folder.name}_{row['file']}"
                shutil.copyfile(folder / row["file"], output / name)
                kept.append({"file": name, "split": row["split"], "captions": row["captions"]})
    count = len(kept)
    listed = read_rows(icons, split="train")
    for i in range(sheets):
        chosen = rng.sample(listed, 16)
        icon_sheet(icons, chosen).save(output / f"sheet_{i:03d}.png")
        names = ", ".join(row["name"] for row in chosen[:4])
        kept.append({"file": f"sheet_{i:03d}.png", "split": "train", "captions": [f"icons of {names} on white"]})
    for i in range(graphics):
        image, caption = draw_graphic(rng)
        image.save(output / f"graphic_{i:03d}.png")
        kept.append({"file": f"graphic_{i:03d}.png", "split": "train", "captions": [caption]})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
    (output / "captions.jsonl").write_text(lines, encoding="utf-8")
    click.echo(f"{output}  {count} photographs, {sheets} sheets of icons, {graphics} graphics")


if __name__ == "__main__":
    main()
