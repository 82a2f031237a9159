"""Does a network obey its prompt? Drawn shapes with captions, and a classifier that reads them back.

python scripts/shapes.py draw runs/centred --centred
gigasr train shapes_base --data runs/centred -o runs/shapes_base
python scripts/shapes.py evaluate-base runs/shapes_base/model.safetensors

A shorter run, and the same without the matching-aware loss, which then learns less:

gigasr train shapes_base --data runs/centred -o runs/short --set train.phases.0.images=8000
gigasr train shapes_base --data runs/centred -o runs/unmatched --set train.phases.0.images=8000 \
    --set train.phases.0.loss.matching=0
python scripts/shapes.py evaluate-base runs/short/model.safetensors
python scripts/shapes.py evaluate-base runs/unmatched/model.safetensors

The upsampler, which sees the colour in its low-res image and learns the shape from the caption:

python scripts/shapes.py draw runs/shapes
gigasr train shapes_upsampler --data runs/shapes -o runs/shapes_upsampler --lpips-features FILE
python scripts/shapes.py evaluate-upsampler runs/shapes_upsampler/model.safetensors --lpips-features FILE
"""

import functools
import itertools
import json
import random
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.utils import save_image

SIZE = 32  # px
FINER = 8  # times as many px to draw in
Colour = tuple[int, int, int]
COLOURS = {
    "red": (215, 35, 35),
    "green": (35, 150, 55),
    "blue": (35, 65, 215),
    "yellow": (240, 215, 40),
    "orange": (240, 125, 20),
    "purple": (135, 45, 170),
    "black": (20, 20, 20),
    "pink": (250, 150, 195),
}
SHAPES = ("circle", "square", "triangle")
CAPTIONS = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]


def draw_shape(
    shape: str, side: float, left: float, top: float, colour: Colour, ground: Colour, size: int
) -> Image.Image:
    """A shape in a square of so many px; side, left and top count pixels of SIZE. Smoothed by drawing it finer."""
    image = Image.new("RGB", (SIZE * FINER, SIZE * FINER), ground)
    brush = ImageDraw.Draw(image)
    left, top, right, bottom = (FINER * x for x in (left, top, left + side, top + side))
    if shape == "circle":
        brush.ellipse((left, top, right, bottom), fill=colour)
    elif shape == "square":
        brush.rectangle((left, top, right, bottom), fill=colour)
    else:
        brush.polygon([(left, bottom), (right, bottom), ((left + right) / 2, top)], fill=colour)
    return image.resize((size, size), Image.Resampling.BOX)


def draw(colour: str, shape: str, rng: random.Random, centred: bool) -> Image.Image:
    """One shape of random size and place on a light ground.

    centred: not below 14 px and within 3 px of the middle; otherwise from 12 px and anywhere
    """
    side = rng.uniform(14 if centred else 12, 20)
    middle = (SIZE - side) / 2
    spread = min(middle - 2, 3) if centred else middle - 2
    left, top = (rng.uniform(middle - spread, middle + spread) for _ in range(2))
    grey = rng.randint(225, 255)
    return draw_shape(shape, side, left, top, COLOURS[colour], (grey, grey, grey), SIZE)


@functools.cache
def patterns(size: int) -> tuple[list[str], Tensor]:
    """The shapes at all sizes and places, as what they cover: names, [N, size * size] in [0, 1]"""
    names, masks = [], []
    for shape, side in itertools.product(SHAPES, range(12, 21)):
        places = range(2, SIZE - 1 - side)
        for left, top in itertools.product(places, places):
            mask = draw_shape(shape, side, left, top, (255, 255, 255), (0, 0, 0), size).convert("L")
            names.append(shape)
            masks.append(np.asarray(mask).flatten())
    return names, torch.from_numpy(np.stack(masks)) / 255


def read(image: Tensor) -> str:
    """image: [3, S, S] in [0, 1] -> the caption of the drawing that fits best

    The shape is the one whose pattern of any size and place has the highest cosine similarity to how far each pixel
    differs from the ground, which is the median of the border; the colour is the nearest to the mean under the pattern.
    """
    border = torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], dim=1)
    difference = (image - border.median(dim=1).values[:, None, None]).abs().amax(dim=0).flatten()
    names, masks = patterns(image.shape[1])
    best = int((masks @ difference / masks.norm(dim=1)).argmax())
    mean = image.flatten(1)[:, masks[best] > 0.9].mean(dim=1)
    distances = {name: float((mean - torch.tensor(rgb) / 255).square().sum()) for name, rgb in COLOURS.items()}
    return f"a {min(distances, key=lambda name: distances[name])} {names[best]}"


def drawn(count: int, seed: int, centred: bool) -> tuple[list[str], Tensor]:
    """returns: captions in turn, images [count, 3, SIZE, SIZE] in [0, 1]"""
    rng = random.Random(seed)
    captions = [CAPTIONS[i % len(CAPTIONS)] for i in range(count)]
    images = [np.asarray(draw(*caption.split()[1:], rng, centred)) for caption in captions]
    return captions, torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255


def report(name: str, wanted: list[str], images: Tensor) -> None:
    """Print how often colour, shape and both are those of the caption."""
    pairs = [(a.split()[1:], read(b).split()[1:]) for a, b in zip(wanted, images, strict=True)]
    colour, shape = (sum(a[i] == b[i] for a, b in pairs) / len(pairs) for i in range(2))
    both = sum(a == b for a, b in pairs) / len(pairs)
    click.echo(f"{name:<10} colour {colour:.1%}  shape {shape:.1%}  both {both:.1%}  of {len(pairs)}")


@click.group()
def main() -> None:
    """Draw captioned shapes; evaluate networks trained on them."""


@main.command("draw")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--count", default=4800, show_default=True)
@click.option("--centred", is_flag=True, help="Larger shapes near the middle.")
def draw_folder(folder: Path, count: int, centred: bool) -> None:
    """Write a training folder: PNG files and captions.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    with (folder / "captions.jsonl").open("w", encoding="utf-8") as index:
        for i in range(count):
            caption = CAPTIONS[i % len(CAPTIONS)]
            name = f"{i:05d}.png"
            draw(*caption.split()[1:], rng, centred).save(folder / name)
            split = "val" if i >= 0.95 * count else "train"
            index.write(json.dumps({"file": name, "captions": [caption], "split": split}) + "\n")
    click.echo(f"{folder}  {count} images")


@main.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--count", default=504, show_default=True)
@click.option("--save", type=click.Path(path_type=Path), help="File for a sheet of the first samples.")
def evaluate_base(model: Path, count: int, save: Path | None) -> None:
    """Give each caption in turn to a base generator, with a fresh z, and read the picture back."""
    from gigasr_base.pipeline import TextToImage

    generator = TextToImage.from_pretrained(str(model), device="cpu")
    captions, truth = drawn(count, seed=1, centred=True)
    truth = torch.nn.functional.interpolate(truth, (generator.size, generator.size), mode="area")
    images = torch.cat([generator.generate([caption], [1000 + i]) for i, caption in enumerate(captions)])
    report("drawn", captions, truth)
    report("generated", captions, images)
    if save is not None:
        save_image(images[:96], save, nrow=24)


@main.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--count", default=240, show_default=True)
@click.option("--lpips-features", type=click.Path(exists=True, path_type=Path))
@click.option("--save", type=click.Path(path_type=Path), help="File for a sheet of the first samples.")
@torch.no_grad()
def evaluate_upsampler(model: Path, count: int, lpips_features: Path | None, save: Path | None) -> None:
    """Upscale shapes reduced 8 times, once with their caption and once with another shape's of their colour."""
    from gigasr.data.degradation import bicubic_low_res
    from gigasr.metrics import Lpips
    from gigasr.models.zoo import load_upsampler
    from gigasr.networks.text import load_tower

    captions, truth = drawn(count, seed=1, centred=False)
    following = dict(zip(SHAPES, (*SHAPES[1:], SHAPES[0]), strict=True))
    wrong = [c.replace(c.split()[2], following[c.split()[2]]) for c in captions]
    network, lpips = load_upsampler(str(model)), Lpips(features=lpips_features)
    tower = load_tower(network.config.text.tower, network.config.text.pretrained)
    hr = truth * 2 - 1
    lr = bicubic_low_res(hr, network.scale)
    z = torch.randn(count, network.config.z_dim, generator=torch.Generator().manual_seed(0))
    sheet = [torch.nn.functional.interpolate(lr, (SIZE, SIZE)), hr]
    for name, texts in (("right", captions), ("wrong", wrong)):
        result = network(lr, z, tower.encode(texts))[-1].clamp(-1, 1)
        click.echo(f"{name} caption  LPIPS {float(lpips(result, hr).mean()):.4f}")
        report("  obeyed", texts, (result + 1) / 2)
        sheet.append(result)
    if save is not None:
        save_image(torch.cat([(rows[:24] + 1) / 2 for rows in sheet]), save, nrow=24)


if __name__ == "__main__":
    main()
