"""Measure a trained model as GigaGAN's paper does, and print its row of Tables 1 to 5 below the published ones.

python scripts/paper_tables.py table4 upsampler_128_1024.safetensors --data laion/
"""

import json
import random
import statistics
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from tqdm import tqdm

import gigasr.models.zoo
import gigasr_base.zoo
from gigasr.cli.common import report_errors
from gigasr.config.training import DataConfig
from gigasr.data.captions import Sample
from gigasr.data.folder import read_folder
from gigasr.evaluation.evaluate import MetricModels, evaluate_models
from gigasr.evaluation.image_sets import collect_features, list_images, load_square
from gigasr.evaluation.settings import EvalSettings
from gigasr.files.atomic import hash_file
from gigasr.files.image_writer import write_image
from gigasr.files.picture import Picture
from gigasr.inference.devices import choose_device
from gigasr.metrics import ClipScore, FrozenFeatures, Lpips
from gigasr.models.checkpoint import open_weights
from gigasr.options import UpscaleOptions
from gigasr.pipeline import SuperResolver
from gigasr.text_table import align
from gigasr_base.pipeline import TextToImage

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
TIMED = 3  # images; the time of one is their median
CAPTIONS = "captions.jsonl"


HEADINGS = {  # metric -> heading, digits
    "fid": ("FID", 2),
    "patch_fid": ("patch-FID", 2),
    "inception_score": ("IS", 1),
    "clip": ("CLIP score", 3),
    "lpips": ("LPIPS", 3),
    "psnr_y": ("PSNR, dB", 1),
    "ssim_y": ("SSIM", 2),
    "seconds": ("seconds", 2),
    "parameters": ("parameters, M", 1),
    "fid_squeeze": ("FID (squeeze)", 1),
    "patch_fid_squeeze": ("patch-FID (squeeze)", 1),
}
SQUEEZE = "_squeeze"  # ends the names of distances by other features than the paper's
TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def show(table: str, name: str, metrics: dict[str, float], count: int) -> None:
    """Print a table with a row more; distances by other features than the paper's get columns of their own."""
    columns = TABLES[table]["columns"]
    columns = columns + [name for name in metrics if name.endswith(SQUEEZE) and name.removesuffix(SQUEEZE) in columns]
    cells = [["", *(HEADINGS[column][0] for column in columns)]]
    for row in [*TABLES[table]["rows"], {"name": f"{name}, {count} images"} | metrics]:
        shown = [f"{row[column]:.{HEADINGS[column][1]}f}" if column in row else "-" for column in columns]
        cells.append([row["name"], *shown])
    click.echo("\n".join([TABLES[table]["title"], *align(cells)]))


def choose_samples(data: Path, count: int, seed: int, min_size: int = 0) -> list[Sample]:
    """`count` images of a folder, none smaller than min_size px, each with one of its captions, drawn by the seed."""
    samples = read_folder(data, DataConfig(min_size=min_size), None)
    if len(samples) < count:
        raise ValueError(
            f"{data}: expected {count} images{f' of at least {min_size} px' if min_size else ''}, got {len(samples)}; "
            f"--count {len(samples)} takes them, but FID compares only between sets of one size"
        )
    rng = random.Random(seed)
    return [Sample(each.path, (rng.choice(each.captions),)) for each in rng.sample(samples, count)]


def require_captions(samples: Sequence[Sample], data: Path) -> None:
    """Raise ValueError where an image has no caption."""
    for sample in samples:
        if not sample.captions[0]:
            raise ValueError(f"{data}: expected a caption for {sample.path.name}, got none; see --help for the layout")


def count_parameters(path: Path) -> float:
    """Millions of numbers in a file of weights; the frozen CLIP is not among them."""
    return sum(tensor.numel() for tensor in open_weights(path)[0].values()) / 1e6


def evaluate_text(table: str, base: str, upsampler: str | None, size: int, options: dict[str, Any]) -> None:
    """A row of Tables 1 to 3: generate images from captions, then compare with their images as squares of `size` px."""
    samples = choose_samples(options["data"], options["count"], options["seed"])
    require_captions(samples, options["data"])
    device = choose_device(options["device"])
    features = FrozenFeatures(options["fid"]).to(device)
    clip = ClipScore(options["clip"], device) if "clip" in TABLES[table]["columns"] else None
    base_model = TextToImage.from_pretrained(base, options["device"])
    resolver = SuperResolver.from_pretrained(upsampler, options["device"]) if upsampler else None

    def generate(number: int) -> Picture:
        (caption,), seed = samples[number].captions, options["seed"] + number
        image = base_model.generate([caption], [seed], options["truncation"])[0]
        return Picture(image) if resolver is None else resolver.upscale(Picture(image), caption, seed=seed)

    weights = [gigasr_base.zoo.find_base_model(base), *([gigasr.models.zoo.find_model(upsampler)] if upsampler else [])]
    recipe = {"models": list(map(hash_file, weights)), "seed": options["seed"], "truncation": options["truncation"]}
    recipe["captions"] = [sample.captions[0] for sample in samples]
    generated = generate_missing(generate, options["images"], recipe)
    bar = tqdm(total=2 * len(samples), desc="features", unit="image", disable=None)
    sets = [
        collect_features(paths, size, features, lambda _: bar.update())
        for paths in (generated, [s.path for s in samples])
    ]
    metrics = sets[0].distances(sets[1]) | {"seconds": measure_seconds(generate)}
    metrics["parameters"] = sum(map(count_parameters, weights))
    if clip is not None:
        scores = [clip(load_square(path, size), s.captions[0]) for path, s in zip(generated, samples, strict=True)]
        metrics["clip"] = statistics.fmean(scores)
    show(table, " + ".join(Path(name).stem for name in (base, upsampler) if name), metrics, len(samples))


def generate_missing(generate: Callable[[int], Picture], folder: Path, recipe: dict[str, Any]) -> list[Path]:
    """Generate one image per caption into a folder; those that it has already, by the same recipe, are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "recipe.json"
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) != recipe:
        raise ValueError(f"{folder}: expected images of these models and captions, got others; choose another --images")
    note.write_text(json.dumps(recipe, ensure_ascii=False, indent=1), encoding="utf-8")
    paths = [folder / f"{i:05d}.png" for i in range(len(recipe["captions"]))]
    for i, path in enumerate(tqdm(paths, desc="generate", unit="image", disable=None)):
        if not path.exists():
            write_image(path, generate(i))
    return paths


def measure_seconds(generate: Callable[[int], Picture]) -> float:
    """The median time of an image, after one that warms up."""
    times = []
    for _ in range(TIMED + 1):
        began = time.perf_counter()
        generate(0)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def evaluate_upsampler(table: str, model: str, settings: EvalSettings, options: dict[str, Any]) -> None:
    """A row of Tables 4 and 5: reduce images, upscale them, compare."""
    samples = choose_samples(options["data"], options["count"], options["seed"], settings.square)
    if settings.prompts == "right":
        require_captions(samples, options["data"])
    device, columns = choose_device(options["device"]), TABLES[table]["columns"]
    metric_models = MetricModels(
        lpips=Lpips(options["lpips"], options["lpips_features"]).to(device) if "lpips" in columns else None,
        features=FrozenFeatures(options["fid"]).to(device),
        clip=ClipScore(options["clip"], device) if "clip" in columns else None,
        has_niqe=False,
    )
    named = {str(i): sample for i, sample in enumerate(samples)}
    bar = tqdm(total=len(named), desc="upscale", unit="image", disable=None)
    (metrics,) = evaluate_models([model], named, {"": settings}, metric_models, lambda _: bar.update()).table().values()
    metrics |= {"parameters": count_parameters(gigasr.models.zoo.find_model(model))}
    show(table, Path(model).stem, metrics, len(samples))


OPTIONS = {  # shared by several tables
    "data": click.option("--data", required=True, type=FOLDER, help="Folder of images, in the layout said above."),
    "images": click.option(
        "--images",
        required=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of the generated images; a run that was stopped goes on there.",
    ),
    "fid": click.option(
        "--fid", default="inception", show_default=True, help="inception (downloaded), or a file of its weights."
    ),
    "lpips_features": click.option("--lpips-features", type=FILE, help="LPIPS's backbone; else it is downloaded."),
    "truncation": click.option("--truncation", default=1.0, show_default=True, type=click.FloatRange(0, 1)),
    "seed": click.option("--seed", default=0, show_default=True, help="Of what is drawn, and of the model."),
    "device": click.option("-g", "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps."),
}


def with_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add some of OPTIONS."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            command = OPTIONS[name](command)
        return report_errors(command)

    return add


def counted(number: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option --count."""
    return click.option("--count", default=number, show_default=True, type=click.IntRange(2), help="Images.")


def scored(source: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option --clip."""
    return click.option("--clip", default=source, show_default=True, help="MODEL:TAG (downloaded) or MODEL:FILE.")


@click.group()
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Measure a model as GigaGAN's paper does, and print its row of Tables 1 to 5 below the published ones.

    Captioned images are a folder with a captions.jsonl, one line {"file": "a.jpg", "captions": ["...", "..."]} each, or
    with a .txt beside each image; `coco` makes one of COCO's annotations. Where an image has several captions one is
    drawn. Images are cut square and reduced by Lanczos, as in the published evaluation. "-" is what the paper does not
    give or what is not certain.
    """
    context.obj = debug


@main.command()
@click.argument("annotations", type=FILE)
@click.argument("images", type=FOLDER)
@report_errors
def coco(annotations: Path, images: Path) -> None:
    """Write IMAGES/captions.jsonl from COCO's ANNOTATIONS: captions_val2014.json for table2, _val2017 for table3."""
    content = json.loads(annotations.read_text(encoding="utf-8"))
    captions: dict[int, list[str]] = {}
    for each in content["annotations"]:
        captions.setdefault(each["image_id"], []).append(" ".join(each["caption"].split()))
    rows = [{"file": row["file_name"], "captions": captions.get(row["id"], [])} for row in content["images"]]
    present = [json.dumps(row, ensure_ascii=False) for row in rows if (images / row["file"]).is_file()]
    if not present:
        raise ValueError(
            f"{images}: expected {rows[0]['file']} and others, got none of them; unpack COCO's images there"
        )
    (images / CAPTIONS).write_text("\n".join(present) + "\n", encoding="utf-8")
    click.echo(f"{images / CAPTIONS}  {len(present)} images")


@main.command()
@click.argument("first", type=FOLDER)
@click.argument("second", type=FOLDER)
@click.option("--size", default=256, show_default=True, type=click.IntRange(8), help="Side of the squares, px.")
@with_options("fid", "device")
def fid(first: Path, second: Path, size: int, **options: Any) -> None:
    """FID between two folders of images, all that lie below them: FIRST is generated, SECOND is real."""
    features = FrozenFeatures(options["fid"]).to(choose_device(options["device"]))
    folders = [list_images(folder) for folder in (first, second)]
    bar = tqdm(total=sum(map(len, folders)), desc="features", unit="image", disable=None)
    sets = [collect_features(paths, size, features, lambda _: bar.update()) for paths in folders]
    for name, value in sets[0].distances(sets[1]).items():
        click.echo(f"{name}  {value:.2f}  ({len(folders[0])} and {len(folders[1])} images, {size} px)")


@main.command()
@click.argument("model")
@counted(10_000)
@scored("ViT-B-32:openai")
@with_options("data", "images", "fid", "truncation", "seed", "device")
def table1(model: str, **options: Any) -> None:
    """Ablation at 64 px: the row of a base MODEL trained from one of configs/ablation/.

    01_stylegan2.toml to 12_scale_up.toml are the rows in their order. Needs 10,000 captioned images that were not
    trained on; the paper does not say which it took. Seconds per image are not in this table.
    """
    evaluate_text("table1", model, None, 64, options)


@main.command()
@click.argument("base")
@click.argument("upsampler")
@counted(30_000)
@with_options("data", "images", "fid", "truncation", "seed", "device")
def table2(base: str, upsampler: str, **options: Any) -> None:
    """Zero-shot COCO: the row of a BASE (configs/base_64.toml) and an UPSAMPLER (configs/upsampler_64_512.toml).

    Needs the 40,504 validation images of COCO 2014 (val2014.zip, 6 GB) and their captions
    (annotations_trainval2014.zip): `coco captions_val2014.json val2014/` puts them together, 30,000 are drawn. What is
    generated at 512 px is reduced to 256 px.
    """
    evaluate_text("table2", base, upsampler, 256, options)


@main.command()
@click.argument("base")
@click.argument("upsampler")
@counted(5000)
@scored("ViT-g-14:laion2b_s12b_b42k")
@click.option("--size", default=512, show_default=True, help="Of the squares compared, px; the paper does not say it.")
@with_options("data", "images", "fid", "truncation", "seed", "device")
def table3(base: str, upsampler: str, size: int, **options: Any) -> None:
    """Zero-shot COCO against distilled diffusion: BASE and UPSAMPLER as of table2.

    Needs the 5,000 validation images of COCO 2017 (val2017.zip, 1 GB) and captions_val2017.json of
    annotations_trainval2017.zip: `coco captions_val2017.json val2017/` puts them together.
    """
    evaluate_text("table3", base, upsampler, size, options)


@main.command()
@click.argument("model")
@counted(10_000)
@scored("ViT-g-14:laion2b_s12b_b42k")
@click.option("--lpips", default="alex", show_default=True, type=click.Choice(["alex", "vgg", "squeeze"]))
@with_options("data", "fid", "lpips_features", "seed", "device")
def table4(model: str, **options: Any) -> None:
    """Captioned photographs from 128 to 1024 px: the row of an upsampler (configs/upsampler_128_1024.toml).

    Needs 10,000 captioned images of LAION with a shorter side of at least 1024 px, e.g. as img2dataset downloads them.
    The paper names neither LPIPS's network nor the size of its patches: alex, and all 256-px squares that fit.
    """
    settings = EvalSettings(8, square=1024, upscale=UpscaleOptions(seed=options["seed"], device=options["device"]))
    evaluate_upsampler("table4", model, settings, options)


@main.command()
@click.argument("model")
@counted(50_000)
@with_options("data", "fid", "seed", "device")
def table5(model: str, **options: Any) -> None:
    """ImageNet from 64 to 256 px without text: the row of a 4x upsampler.

    Needs ImageNet's 50,000 validation images (ILSVRC2012_img_val.tar) below one folder, without captions. PSNR and SSIM
    are of the luma; the paper does not say of what.
    """
    upscale = UpscaleOptions(seed=options["seed"], device=options["device"])
    settings = EvalSettings(4, prompts="none", square=256, upscale=upscale)
    evaluate_upsampler("table5", model, settings, options)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
