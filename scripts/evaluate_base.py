"""Evaluate a base model trained on emoji128: does it show what it is asked for, in the style it is asked for?

python scripts/evaluate_base.py base_lite --data emoji128 --features squeezenet1_1_features.pth -o runs/base_figures
"""

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torchvision.utils import save_image

from gigasr.data import captions
from gigasr.data.captions import Sample
from gigasr.metrics import FrozenFeatures, frechet_distance
from gigasr_base.evaluation import load_real
from gigasr_base.metrics import hit_rate, largest_jump, nearest, overlap, silhouette
from gigasr_base.pipeline import TextToImage

STYLES = ["3d style", "flat style", "noto style", "flat twemoji style", "outlined openmoji style"]
ANIMALS = ["cat face", "dog face", "frog", "pig face", "owl", "fish", "spider", "octopus"]
FOOD = ["red apple", "banana", "pizza", "strawberry", "bread", "ice cream", "watermelon", "carrot"]
THINGS = ["umbrella", "key", "hammer", "camera", "guitar", "books", "candle", "bomb"]
PLACES = ["house", "rocket", "bus", "bicycle", "mountain", "tent", "volcano", "sun"]
SIGNS = ["red heart", "star", "fire", "droplet", "snowflake", "grinning face", "pile of poo", "red circle"]
CONCEPTS = [*ANIMALS, *FOOD, *THINGS, *PLACES, *SIGNS]
SYNONYMS = {  # in no caption of the icons -> what they mean there
    "steed": "horse",
    "blaze": "fire",
    "spectacles": "glasses",
    "canine": "dog",
    "crimson heart": "red heart",
    "residence": "house",
    "cottage": "house",
    "tot": "baby",
    "cellphone": "mobile phone",
    "telly": "television",
    "vessel": "ship",
    "jail": "locked",
}
FRAMES = 24
Row = dict[str, Any]


def read_rows(data: Path) -> list[Row]:
    """The lines of captions.jsonl."""
    return [row.fields for row in captions.read_rows(data / "captions.jsonl")]


def concept(row: Row) -> str:
    """What an icon shows: its name without the skin tone."""
    return re.sub(r"[:,] (medium-)?(light|medium|dark) skin tone", "", row["name"])


def embed(features: FrozenFeatures, images: Tensor) -> Tensor:
    """images: [N, 3, H, W] in [0, 1] -> [N, D]"""
    return torch.cat([features(part) for part in images.split(64)])


def real_images(data: Path, rows: Sequence[Row], size: int) -> Tensor:
    """The icons themselves: [N, 3, size, size] in [0, 1]"""
    return torch.stack([load_real(Sample(data / row["file"], ()), size) for row in rows])


def generate(base_model: TextToImage, rows: Sequence[Row], truncation: float) -> Tensor:
    """The first caption of each icon, generated with a seed of its own."""
    return base_model.generate([row["captions"][0] for row in rows], range(len(rows)), truncation)


def measure_retrieval(fake: Tensor, rows: Sequence[Row], gallery: Tensor, names: Sequence[str]) -> str:
    """How often the nearest real icon, or one of the five nearest, has the prompt's concept; fake, gallery: features"""
    found, wanted = nearest(fake, gallery, 5), [concept(row) for row in rows]
    return f"first {hit_rate(found[:, :1], names, wanted):.1%}  first five {hit_rate(found, names, wanted):.1%}"


def measure_mixing(base_model: TextToImage, mix_at: int, truncation: float) -> str:
    """Flat icons whose finer levels follow another icon in 3d style: silhouettes kept, colours changed."""
    overlaps, changes = [], []
    for i, concept in enumerate(CONCEPTS):
        coarse, fine = f"a {concept}, flat style", f"a {CONCEPTS[(i + 9) % len(CONCEPTS)]}, 3d style"
        plain = base_model.generate([coarse], [i], truncation)
        mixed = base_model.mix(coarse, fine, [i], mix_at, truncation)
        overlaps.append(overlap(silhouette(plain), silhouette(mixed)))
        changes.append((mixed - plain).abs().amax(dim=1)[silhouette(plain) & silhouette(mixed)].mean())
    return f"IoU {torch.cat(overlaps).mean():.2f}  change of colour inside {torch.stack(changes).nanmean():.2f}"


def measure_smoothness(base_model: TextToImage, truncation: float) -> str:
    """The largest jump of interpolations between neighbouring concepts."""
    pairs = zip(CONCEPTS[::2], CONCEPTS[1::2], strict=True)
    frame_sets = [
        base_model.interpolate(f"a {a}, 3d style", f"a {b}, 3d style", FRAMES, 0, None, truncation) for a, b in pairs
    ]
    jumps = torch.tensor([largest_jump(frames) for frames in frame_sets])
    return f"largest step / median: mean {jumps.mean():.2f}, worst {jumps.max():.2f}"


def write_sheets(base_model: TextToImage, data: Path, pairs: Sequence[Row], truncation: float, output: Path) -> None:
    """Pictures to look at: known concepts in every style, synonyms, unseen pairs and the icons they stand for."""
    prompts = [f"a {concept}, {style}" for style in STYLES for concept in CONCEPTS]
    known = base_model.generate(prompts, [0] * len(prompts), truncation)
    save_image(known.view(5, 5, 8, *known.shape[1:]).transpose(0, 1).flatten(0, 2), output / "concepts.png", nrow=8)
    words = [f"a {word}, {style}" for style in STYLES for word in SYNONYMS]
    save_image(base_model.generate(words, [0] * len(words), truncation), output / "synonyms.png", nrow=len(SYNONYMS))
    save_image(generate(base_model, pairs[:96], truncation), output / "unseen_pairs.png", nrow=16)
    save_image(real_images(data, pairs[:96], base_model.size), output / "unseen_pairs_real.png", nrow=16)


@click.command()
@click.argument("model")
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--features", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--truncation", default=1.0, show_default=True)
@click.option("--number", default=1000, show_default=True, help="Prompts of the training split.")
def main(model: str, data: Path, features: Path, output: Path, truncation: float, number: int) -> None:
    """Print retrieval, FID, mixing and interpolation of MODEL; write contact sheets.

    The features of the icons are kept in the folder for the next time.
    """
    output.mkdir(parents=True, exist_ok=True)
    base_model, network = TextToImage.from_pretrained(model), FrozenFeatures(features)
    rows = read_rows(data)
    captions = " ".join(caption.lower() for row in rows for caption in row["captions"])
    if known := [word for word in SYNONYMS if word in captions.split()]:
        raise ValueError(f"SYNONYMS: expected words in no caption, got {', '.join(known)}")
    kept, names = output / f"icons_{base_model.size}.pt", [concept(row) for row in rows]
    if not kept.exists():
        torch.save(embed(network, real_images(data, rows, base_model.size)), kept)
    gallery = torch.load(kept, weights_only=True)
    order = random.Random(0).sample(range(len(rows)), len(rows))
    is_train = [row["split"] == "train" for row in rows]
    groups = {
        "train": [i for i in order if is_train[i]][:number],
        "unseen pairs": [i for i in order if rows[i].get("test_kind") == "pair"],
        "unseen concepts": [i for i in order if rows[i].get("test_kind") == "concept"],
    }
    fakes = {}
    for name, places in groups.items():
        chosen = [rows[i] for i in places]
        fakes[name] = embed(network, generate(base_model, chosen, truncation))
        click.echo(f"{name} ({len(chosen)} prompts): {measure_retrieval(fakes[name], chosen, gallery, names)}")
    test = torch.cat([fakes["unseen pairs"], fakes["unseen concepts"]])
    real_train, real_test = (gallery[torch.tensor(is_train) == split] for split in (True, False))
    click.echo(f"FID (squeeze) of train prompts to train icons {frechet_distance(fakes['train'], real_train):.2f}")
    click.echo(f"FID (squeeze) of test prompts to test icons {frechet_distance(test, real_test):.2f}")
    click.echo(f"FID (squeeze) of test icons to train icons {frechet_distance(real_test, real_train):.2f}")
    for mix_at in (8, 16, 32):
        click.echo(f"mixing at {mix_at} px: {measure_mixing(base_model, mix_at, truncation)}")
    click.echo(f"interpolation, {FRAMES} frames: {measure_smoothness(base_model, truncation)}")
    write_sheets(base_model, data, [rows[i] for i in groups["unseen pairs"]], truncation, output)


if __name__ == "__main__":
    main()
