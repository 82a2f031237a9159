"""Times in one table: our networks, folded and not, in turn with Real-ESRGAN's; medians of one run."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gigasr.config.model import load_config
from gigasr.evaluation.meter import ResourceMeter
from gigasr.files.picture import Picture
from gigasr.inference.devices import ExecutionPlan, choose_device, choose_dtype
from gigasr.inference.engine import Engine, Model
from gigasr.inference.row_stream import RowStream
from gigasr.models.aurasr import AuraConfig, AuraModel, AuraWeights
from gigasr.models.native import PromptedUpsampler
from gigasr.models.zoo import DEFAULT_MODEL, load_model, load_upsampler
from gigasr.networks.text import TokenFeatures
from gigasr.networks.upsampler import Upsampler
from gigasr.pipeline import SuperResolver

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
MATMUL_SIDE = 2048
PEER_SIDE = 128  # px; input of the peers, which upscale 4 times
AURASR: dict[str, Any] = {  # the public models' config.json
    "style_network": {"dim_in": 128, "dim_out": 512, "depth": 4},
    "dim": 64,
    "image_size": 256,
    "input_image_size": 64,
    "unconditional": True,
    "skip_connect_scale": 0.4,
}


@dataclass
class BenchCase:
    """What is timed."""

    name: str
    run: Callable[[], object]
    pixels: int  # of the output
    convolutions: nn.Module | None = None  # whose convolutions are timed alone too
    held: int = 0  # bytes of weights in memory that it alone needs
    is_counted: bool = True  # whether torch sees its operations, and counting them is worth one more run
    seconds: list[float] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchPlan:
    """What is compared, and how."""

    execution: ExecutionPlan
    side: int = 256  # px; low-res input of our networks
    repeats: int = 3
    clock: str = "wall"  # or "cpu": seconds of all the process's threads, for a machine with other work
    configs: tuple[Path, ...] = ()  # of more networks of ours, built with random weights: times are the same
    models: tuple[str, ...] = ()  # more models, by name
    has_aurasr: bool = False  # compare AuraSR with its own package


def plan_benchmarks(
    device: str,
    precision: str,
    side: int,
    repeats: int,
    clock: str,
    configs: Iterable[Path],
    models: Iterable[str] = (),
    has_aurasr: bool = False,
) -> BenchPlan:
    """A plan from options."""
    main_device = choose_device(device)
    execution = ExecutionPlan((main_device,), choose_dtype(precision, main_device))
    return BenchPlan(execution, side, repeats, clock, tuple(configs), tuple(models), has_aurasr)


def our_cases(network: Upsampler, name: str, plan: BenchPlan, side: int, has_pipeline: bool) -> list[BenchCase]:
    """A network of ours: the pipeline around it, the bare folded network, the unfolded one."""
    model, execution = PromptedUpsampler(network), plan.execution
    side += -side % network.multiple
    picture = Picture(torch.rand(3, side, side))
    lr = (picture.rgb[None] * 2 - 1).to(execution.main_device)
    engine = model.engine("", 0, execution)
    folded, pixels = engine.networks[execution.main_device], (side * model.scale) ** 2
    assert isinstance(folded, nn.Module)
    z, tokens = torch.randn(1, network.config.z_dim), model.tower.encode([""])
    cases = [
        BenchCase(f"{name}, folded", partial(run_engine, engine, lr), pixels, folded),
        BenchCase(
            f"{name}, unfolded fp32", partial(run_unfolded, network, lr, z.to(execution.main_device), tokens), pixels
        ),
    ]
    if has_pipeline:
        resolver = SuperResolver(
            model, str(execution.main_device), "fp32" if execution.dtype == torch.float32 else "bf16"
        )
        cases.insert(0, BenchCase(f"{name}, pipeline", partial(run_pipeline, resolver, picture), pixels))
    return cases


def config_cases(path: Path, plan: BenchPlan) -> list[BenchCase]:
    """A network of ours from a config; one with global attention at the size that it is for."""
    network = Upsampler(load_config(path).upsampler).eval().requires_grad_(False)
    side = plan.side if network.config.window else network.config.lr_size
    return our_cases(network, path.stem, plan, side, has_pipeline=False)


def run_pipeline(resolver: SuperResolver, picture: Picture) -> None:
    """Upscale a picture, correction and all."""
    for strip in resolver.strips(picture).strips:
        del strip


def model_case(name: str, plan: BenchPlan) -> BenchCase:
    """Another model, in its engine."""
    model, lr = load_model(name), torch.rand(1, 3, plan.side, plan.side).to(plan.execution.main_device) * 2 - 1
    engine = model.engine("", 0, plan.execution)
    pixels = (plan.side * model.scale) ** 2
    return BenchCase(Path(name).name, partial(run_engine, engine, lr), pixels, is_counted=False)


def aurasr_cases(execution: ExecutionPlan) -> list[BenchCase]:
    """AuraSR at the public size with random weights, from 256 px, folding included; and what its package does.

    Memory is what each takes with its weights: gigasr has the folded ones, the package what gigasr leaves in the file.
    """
    try:
        from aura_sr import AuraSR
    except ImportError as error:
        raise ImportError(f"aurasr: expected its package, got '{error}'; pip install aura-sr") from None
    package = AuraSR(AURASR, device=str(execution.main_device))
    package.upsampler.eval().requires_grad_(False)
    side, scale = PEER_SIDE * 2, AURASR["image_size"] // AURASR["input_image_size"]
    model = AuraModel(AuraWeights(package.upsampler.state_dict(), AuraConfig.model_validate(AURASR), "random"))
    lr, pixels = torch.rand(1, 3, side, side) * 2 - 1, (side * scale) ** 2
    runs = {
        f"AuraSR, {str(dtype).removeprefix('torch.')}": partial(run_model, model, lr, replace(execution, dtype=dtype))
        for dtype in (torch.float32, execution.dtype)
    }
    cases = [BenchCase(name, run, pixels, is_counted=False) for name, run in runs.items()]
    run = partial(package.upscale_4x, Image.new("RGB", (side, side), "gray"))
    held = sum(tensor.numel() * tensor.element_size() for tensor in package.upsampler.parameters())
    return [*cases, BenchCase("AuraSR, its package", run, pixels, held=held, is_counted=False)]


def run_model(model: Model, lr: Tensor, execution: ExecutionPlan) -> None:
    """Make an engine and run it."""
    run_engine(model.engine("", 0, execution), lr.to(execution.main_device))


def run_engine(engine: Engine, lr: Tensor) -> None:
    """Run a network in its pieces."""
    for strip in engine.strips(RowStream.from_tensor(lr), 0):
        del strip


def run_unfolded(network: Upsampler, lr: Tensor, z: Tensor, tokens: TokenFeatures) -> Tensor:
    """Run the network as in training, mapping network and text transformer included."""
    return network(lr, z, tokens)[-1]


def peer_cases(execution: ExecutionPlan) -> list[BenchCase]:
    """Real-ESRGAN's small and large network at 4x, on one tile, with random weights: times are the same."""
    from spandrel.architectures.Compact import Compact
    from spandrel.architectures.ESRGAN import ESRGAN

    networks: dict[str, nn.Module] = {
        "SRVGGNetCompact(64, 32)": Compact(num_feat=64, num_conv=32, upscale=4),
        "RRDBNet-23": ESRGAN(num_filters=64, num_blocks=23, scale=4),
    }
    where: dict[str, Any] = {"device": execution.main_device, "dtype": execution.dtype}
    x = torch.rand(1, 3, PEER_SIDE, PEER_SIDE).to(**where, memory_format=torch.channels_last)
    cases = []
    for name, network in networks.items():
        network = network.eval().requires_grad_(False).to(**where).to(memory_format=torch.channels_last)
        cases.append(BenchCase(name, partial(network, x), (4 * PEER_SIDE) ** 2, network))
    return cases


def seconds(run: Callable[[], object], execution: ExecutionPlan, clock: str) -> float:
    """Time of one call."""
    start = CLOCKS[clock]()
    run()
    if execution.main_device.type == "cuda":
        torch.cuda.synchronize(execution.main_device)
    return CLOCKS[clock]() - start


def count_flops(run: Callable[[], object]) -> float:
    """Operations of one call, two per multiplication and addition."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def bare_convolutions(case: BenchCase, plan: BenchPlan) -> tuple[float, float]:
    """Operations, and seconds that the convolutions of one call take when nothing else is done: their peak."""
    calls: dict[tuple[Any, ...], list[Any]] = {}

    def note(layer: nn.Conv2d, inputs: tuple[Tensor]) -> None:
        x = inputs[0]
        key = (x.shape, layer.weight.shape, layer.stride)
        calls.setdefault(key, [0, layer, torch.rand_like(x)])[0] += 1

    assert case.convolutions is not None
    layers = [layer for layer in case.convolutions.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    case.run()
    for hook in hooks:
        hook.remove()
    flops = total = 0.0
    for count, layer, x in calls.values():
        run = partial(F.conv2d, x, layer.weight, layer.bias, layer.stride, layer.padding)
        times = [seconds(run, plan.execution, plan.clock) for _ in range(plan.repeats + 1)]
        total += count * statistics.median(times[1:])
        flops += count * count_flops(run)
    return flops, total


def matmul_peak(plan: BenchPlan) -> float:
    """Operations per second of a large matrix product."""
    a = torch.rand(MATMUL_SIDE, MATMUL_SIDE).to(plan.execution.main_device, plan.execution.dtype)
    times = [seconds(lambda: a @ a, plan.execution, plan.clock) for _ in range(plan.repeats + 2)]
    return 2 * MATMUL_SIDE**3 / statistics.median(times[2:])


@torch.inference_mode()
def run_benchmarks(plan: BenchPlan, progress: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """Time everything in turn, as often as the plan says and once to warm up; a JSON-able result."""
    cases = our_cases(load_upsampler(), DEFAULT_MODEL, plan, plan.side, has_pipeline=True)
    for path in plan.configs:
        cases += config_cases(path, plan)
    cases += [model_case(name, plan) for name in plan.models]
    cases += aurasr_cases(plan.execution) if plan.has_aurasr else []
    cases += peer_cases(plan.execution)
    for repeat in range(plan.repeats + 1):
        for case in cases:
            progress(case.name)
            if repeat:
                case.seconds.append(seconds(case.run, plan.execution, plan.clock))
            else:
                meter = ResourceMeter(plan.execution.main_device.type)
                case.facts["peak_mb"] = meter.run(case.run)[1]["peak_mb"] + case.held / 1e6
    peak = matmul_peak(plan)
    for case in cases:
        median = statistics.median(case.seconds)
        case.facts["seconds_per_mp"] = median / case.pixels * 1e6
        if case.is_counted:
            flops = count_flops(case.run)
            case.facts |= {"gflop_per_mp": flops / case.pixels / 1e3, "share_of_matmul_peak": flops / median / peak}
        if case.convolutions is not None:
            case.facts["share_of_convolution_peak"] = bare_convolutions(case, plan)[1] / median
    names = {
        "device": describe_device(plan.execution.main_device),
        "dtype": str(plan.execution.dtype).removeprefix("torch."),
    }
    rows = [{"name": case.name, "seconds": case.seconds, **case.facts} for case in cases]
    options = {"clock": plan.clock, "threads": torch.get_num_threads(), "matmul_gflops": peak / 1e9}
    return {**names, **options, "torch": torch.__version__, "cases": rows}


def describe_device(device: torch.device) -> str:
    """A device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type


def cell(value: float | None, width: int, digits: int = 0, percent: bool = False) -> str:
    """A number in a column, blank where there is none."""
    if value is None:
        return " " * width
    if percent:
        value *= 100
    return f"{value:>{width}.{digits}f}"


def format_benchmarks(result: dict[str, Any]) -> str:
    """The result of `run_benchmarks` for people: a row per case, its time also as a share of each peer's."""
    peers = result["cases"][-2:]
    head = f"{'':<34}{'s / MP':>9}{'GFLOP / MP':>12}{'% matmul':>10}{'% conv':>8}{'peak MB':>9}"
    lines = [head + "".join(f"{'/ ' + peer['name'].split('(')[0]:>18}" for peer in peers)]
    for case in result["cases"]:
        line = f"{case['name']:<34}{case['seconds_per_mp']:>9.3f}{cell(case.get('gflop_per_mp'), 12, 1)}"
        line += cell(case.get("share_of_matmul_peak"), 10, percent=True)
        line += cell(case.get("share_of_convolution_peak"), 8, percent=True) + f"{case['peak_mb']:>9.0f}"
        lines.append(line + "".join(f"{case['seconds_per_mp'] / peer['seconds_per_mp']:>18.3f}" for peer in peers))
    what = f"{result['device']}, {result['dtype']}, {result['threads']} threads, {result['clock']} time"
    return "\n".join([*lines, f"{what}; matmul {result['matmul_gflops']:.0f} GFLOP/s, torch {result['torch']}"])
