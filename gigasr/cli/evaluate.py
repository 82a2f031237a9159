"""gigasr eval: metrics of the models."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from gigasr.cli.common import SEED_RANGE, is_given, progress_bar, report_errors
from gigasr.cli.fields import add_options, read_options
from gigasr.cli.parameter_types import Several, Truncations
from gigasr.evaluation.options import DEGRADED, MORE_METRICS, SHOWN_METRICS, EvalOptions, LowResKind, Prompts
from gigasr.options import STRENGTHS, UpscaleOptions

if TYPE_CHECKING:
    from gigasr.data.captions import Sample
    from gigasr.evaluation.evaluate import MetricModels
    from gigasr.evaluation.report import Report

StepProgress = Callable[[int], None]  # called with the number of steps after each
FILE = click.Path(dir_okay=False, path_type=Path)
METRICS = (*SHOWN_METRICS, *MORE_METRICS)
OF_UPSAMPLERS = (
    *("scale", "low_res", "prompts", "given", "square", *STRENGTHS),
    *("metrics", "lpips", "lpips_features", "cases", "save"),
)


@click.command("eval")
@click.argument("models", nargs=-1, required=True)
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of high-res images, with captions.jsonl, or a .txt beside each, where there are prompts.",
)
@add_options(EvalOptions, "split", "scale")
@click.option(
    "--lr",
    "low_res",
    type=Several(get_args(LowResKind), {"degraded": DEGRADED}, has_folders=True),
    default="bicubic",
    show_default=True,
    help=f"Low-res inputs: bicubic (PIL's), matlab, or seeded degradations: {', '.join(DEGRADED)} (the last "
    "is all of them, twice); or a folder of given ones, named like the images. Several with commas; "
    "degraded = these five.",
)
@click.option(
    "--prompts",
    type=Several(get_args(Prompts)),
    default="right",
    show_default=True,
    help="right (each image's first caption), none, wrong (another image's); several with commas.",
)
@click.option(
    "-p",
    "--prompt",
    "given",
    multiple=True,
    help="One prompt for all images, in the place of --prompts; may be repeated. Several give a row each.",
)
@add_options(EvalOptions, "square")
@click.option(
    "--seed", default=0, type=SEED_RANGE, show_default=True, help="Seed of models, degradations and wrong prompts."
)
@add_options(UpscaleOptions, *STRENGTHS)
@click.option(
    "--metrics",
    type=Several(METRICS, {"all": METRICS}),
    default=",".join(SHOWN_METRICS),
    show_default=True,
    help=f"Columns, with commas between them; also {', '.join(MORE_METRICS)}, or all. --fid and --clip add theirs.",
)
@add_options(EvalOptions, "lpips")
@click.option("--lpips-features", type=FILE, help="File of its backbone, torchvision's weights.  [default: downloaded]")
@add_options(EvalOptions, "fid", "clip")
@click.option(
    "--truncations",
    type=Truncations(),
    default="1,0.8,0.6,0.4,0.2",
    show_default=True,
    help="At which base models are evaluated.",
)
@click.option("--report", type=FILE, help="HTML file with the table, plots and crops; it needs no network.")
@add_options(EvalOptions, "cases")
@click.option("--json", "json_file", type=FILE, help="File for all metrics of all images.")
@click.option("--save", type=click.Path(file_okay=False, path_type=Path), help="Folder for the results.")
@add_options(UpscaleOptions, "device", "precision")
@report_errors
def evaluate(**fields: Any) -> None:
    """Compare models on images reduced to low-res inputs: a table of means.

    MODELS are upsamplers, named as for upscale, lanczos, bicubic, or folders of another tool's results named like the
    images; or base models, which generate images from the captions. Time is the median; memory is the peak above what
    was in use before.
    NIQE, FID, --lr matlab and --report need the extra gigasr[eval].

    \b
    Examples:
      gigasr eval upsampler_lite lanczos --data kodak24 --scale 8
      gigasr eval upsampler_lite lanczos --data kodak24 --metrics all --lr degraded --report report.html
      gigasr eval upsampler_lite --data photos --split val --prompts right,none,wrong
      gigasr eval upsampler_lite --data hr --lr noisy/ --scale 4 --prompt noisy --prompt ""
      gigasr eval upsampler_lite --data photos --fid inception --clip ViT-B-32:openai --json metrics.json
      gigasr eval base_lite --data emoji128 --split test --fid squeezenet1_1_features.pth --report base.html
    """
    from gigasr.evaluation.report import format_table, to_html, to_json
    from gigasr.files.text_file import write_text

    options = read_options(EvalOptions, fields, upscale=read_options(UpscaleOptions, fields))
    samples = list_samples(options)
    is_base = [is_base_model(model) for model in options.models]
    if any(is_base) and not all(is_base):
        raise click.UsageError("MODELS: base models and upsamplers share no metrics; evaluate them separately.")
    refuse_options(("truncations",) if not any(is_base) else OF_UPSAMPLERS, "does not apply to these models")
    if "lpips" not in options.metrics:
        refuse_options(("lpips", "lpips_features"), "needs 'lpips' in '--metrics'")
    if not options.report:
        refuse_options(("cases",), "needs '--report'")
    if options.given:
        refuse_options(("prompts",), "excludes '--prompt'")
    for target in filter(None, (options.report, options.json_file)):
        if not target.absolute().parent.is_dir():
            raise ValueError(f"{target}: expected a file in a folder that exists; create it first")
    with progress_bar(0, "eval", "image") as bar:

        def progress(total: int) -> None:
            bar.total = total
            bar.update()

        run_evaluation = evaluate_base_models if all(is_base) else evaluate_upsamplers
        report = run_evaluation(samples, options, progress)
    click.echo(format_table(report.table))
    for file, make in ((options.json_file, to_json), (options.report, to_html)):
        if file is not None:
            write_text(file, make(report))
    if options.report is not None:
        click.echo(f"{options.report}  {options.report.stat().st_size / 1e6:.1f} MB")


def refuse_options(useless: tuple[str, ...], reason: str) -> None:
    """Raise UsageError for given options that would change nothing."""
    for parameter in click.get_current_context().command.params:
        if parameter.name in useless and is_given(parameter.name):
            raise click.UsageError(f"Option '{parameter.opts[-1]}' {reason}.")


def list_samples(options: EvalOptions) -> "dict[str, Sample]":
    """Find the samples of the data folder, by relative path.

    Raises ValueError for a split without captions.jsonl.
    """
    from gigasr.config.training import DataConfig
    from gigasr.data.folder import read_folder

    if options.split and not (options.data / "captions.jsonl").is_file():
        raise ValueError(f"{options.data}: expected captions.jsonl, which tells splits, got none; leave out --split")
    config = DataConfig(min_size=options.square or 0)
    samples = read_folder(options.data, config, options.split)
    return {name_below(options.data, sample.path): sample for sample in samples}


def name_below(folder: Path, path: Path) -> str:
    """Return the path of an image relative to its folder; results have this name.

    Raises ValueError for an image outside the folder, from a captions.jsonl.
    """
    absolute, root = (Path(os.path.abspath(each)) for each in (path, folder))
    if not absolute.is_relative_to(root):
        raise ValueError(f"{path}: expected an image below {folder}, got one elsewhere; move captions.jsonl above both")
    return absolute.relative_to(root).as_posix()


def is_base_model(name: str) -> bool:
    """Tell whether a bundled name, a file or a folder means a base model."""
    from gigasr.models.checkpoint import MODEL, is_onnx, open_weights
    from gigasr_base.zoo import bundled_base_models, find_base_model

    path = Path(name)
    if path.is_file() and not is_onnx(path) or (path / MODEL).is_file():
        return open_weights(find_base_model(name))[1].get("kind") == "base"
    return name in bundled_base_models()


def load_metric_models(options: EvalOptions, is_base: bool) -> "MetricModels":
    """Load the networks of the asked metrics, on the device."""
    from gigasr.evaluation.evaluate import MetricModels
    from gigasr.inference.devices import choose_device
    from gigasr.metrics import ClipScore, FrozenFeatures, Lpips

    device = choose_device(options.upscale.device)
    has_lpips = not is_base and "lpips" in options.metrics
    return MetricModels(
        lpips=Lpips(options.lpips, options.lpips_features).to(device) if has_lpips else None,
        features=FrozenFeatures(options.fid).to(device) if options.fid else None,
        clip=ClipScore(options.clip, device) if options.clip else None,
        has_niqe="niqe" in options.metrics,
    )


def evaluate_upsamplers(samples: "dict[str, Sample]", options: EvalOptions, progress: StepProgress) -> "Report":
    """Evaluate upsamplers, interpolations and folders of results."""
    from gigasr.evaluation.evaluate import evaluate_models
    from gigasr.evaluation.plan import name_inputs, name_prompts, plan_settings
    from gigasr.evaluation.report import METRIC_FORMATS as FORMATS
    from gigasr.evaluation.report import Report, plot
    from gigasr.folders.prompts import check_prompts

    check_prompts(options.given)
    settings_by_label = plan_settings(options)
    num_cases = options.cases if options.report else 0
    metric_models = load_metric_models(options, is_base=False)
    found = evaluate_models(
        options.models, samples, settings_by_label, metric_models, progress, num_cases, options.save
    )
    found.leave_out(set(METRICS).difference(options.metrics))
    table = found.table()
    facts = describe_run(options, len(next(iter(found.images.values())))) | {"scale": str(options.scale)}
    facts |= {name: str(value) for name, value in options.upscale.changed().items() if name in STRENGTHS}
    facts |= {"low-res inputs": ", ".join(name_inputs(options.low_res)), "prompts": ", ".join(name_prompts(options))}
    if metric_models.lpips is not None:
        facts["LPIPS"] = options.lpips
    plots = [
        plot(table, "seconds", name, is_log=True)
        for name in FORMATS
        if FORMATS[name].better and name not in ("seconds", "peak_mb")
    ]
    title = f"{', '.join(Path(model).name for model in options.models)} on {options.data.name}"
    return Report(title, facts, table, [each for each in plots if each], found.images, found.cases)


def evaluate_base_models(samples: "dict[str, Sample]", options: EvalOptions, progress: StepProgress) -> "Report":
    """Evaluate base models over truncations."""
    from gigasr.evaluation.report import Report, plot
    from gigasr_base.evaluation import evaluate_base
    from gigasr_base.pipeline import TextToImage

    metric_models = load_metric_models(options, is_base=True)
    base_models = {
        name: TextToImage.from_pretrained(name, options.upscale.device, options.upscale.precision)
        for name in options.models
    }
    found = evaluate_base(
        base_models,
        samples,
        options.truncations,
        options.upscale.seed,
        metric_models.features,
        metric_models.clip,
        progress,
    )
    distance = "fid" if metric_models.features is None or metric_models.features.name == "inception" else "fid_squeeze"
    axes = [("truncation", distance), (distance, "clip"), (distance, "retrieval")]
    plots = [plot(found.table, x, y, is_curve=len(options.models) == 1) for x, y in axes]
    title = f"{', '.join(Path(model).name for model in options.models)} on {options.data.name}"
    return Report(
        title,
        describe_run(options, len(samples)),
        found.table,
        [each for each in plots if each],
        found.images,
        sheets=found.sheets,
    )


def describe_run(options: EvalOptions, number: int) -> dict[str, str]:
    """Describe the run of a report: name of a fact -> text."""
    import torch

    from gigasr import __version__
    from gigasr.inference.devices import choose_device

    device = choose_device(options.upscale.device)
    where = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device}, {torch.get_num_threads()} threads"
    )
    facts = {"data": str(options.data.name), "images": str(number), "seed": str(options.upscale.seed), "device": where}
    asked = {
        "split": options.split,
        "squares": options.square and f"{options.square} px",
        "CLIP": options.clip,
        "FID": options.fid and Path(options.fid).name,
    }
    return facts | {name: value for name, value in asked.items() if value} | {"gigasr": __version__}
