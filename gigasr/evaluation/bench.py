"""Time our networks, folded and unfolded, against Real-ESRGAN's in one run.

The networks take turns; every time in the table is a median.
"""

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
    """One timed call and its measurements."""

    name: str
    run: Callable[[], object]
    pixels: int  # of the output
    convolutions: nn.Module | None = None  # the network; its convolutions are also timed alone
    held: int = 0  # bytes of weights that only this case keeps in memory
    is_counted: bool = True  # torch sees the operations, and the count is worth one more run
    seconds: list[float] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchPlan:
    """The networks of a benchmark and its settings."""

    execution: ExecutionPlan
    side: int = 256  # px; low-res input of our networks
    repeats: int = 3
    clock: str = "wall"  # or "cpu": seconds of all threads of the process, for a busy machine
    configs: tuple[Path, ...] = ()  # more networks of ours, with random weights: weights do not change times
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
    """Make a plan from options."""
    main_device = choose_device(device)
    execution = ExecutionPlan((main_device,), choose_dtype(precision, main_device))
    return BenchPlan(execution, side, repeats, clock, tuple(configs), tuple(models), has_aurasr)


def our_cases(network: Upsampler, name: str, plan: BenchPlan, side: int, has_pipeline: bool) -> list[BenchCase]:
    """Return a network's cases: pipeline (if asked for), folded, unfolded.

    side: px of the low-res input; rounded up to a multiple of the network's
    """
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
    """Return the cases of a config's upsampler, with random weights.

    A network with global attention gets inputs of its trained size, not of the plan's.
    """
    network = Upsampler(load_config(path).upsampler).eval().requires_grad_(False)
    side = plan.side if network.config.window else network.config.lr_size
    return our_cases(network, path.stem, plan, side, has_pipeline=False)


def run_pipeline(resolver: SuperResolver, picture: Picture) -> None:
    """Upscale a picture with the whole pipeline, low-res correction included."""
    for strip in resolver.strips(picture).strips:
        del strip


def model_case(name: str, plan: BenchPlan) -> BenchCase:
    """Return the case of a model by name, run in its engine."""
    model, lr = load_model(name), torch.rand(1, 3, plan.side, plan.side).to(plan.execution.main_device) * 2 - 1
    engine = model.engine("", 0, plan.execution)
    pixels = (plan.side * model.scale) ** 2
    return BenchCase(Path(name).name, partial(run_engine, engine, lr), pixels, is_counted=False)


def aurasr_cases(execution: ExecutionPlan) -> list[BenchCase]:
    """Return the cases of AuraSR: in gigasr and in its own package.

    The network has the public size and random weights; the input has 256 px. The time in gigasr includes folding.
    Memory includes the weights: gigasr keeps only the folded weights, the package all weights. Raises
    ImportError without the package.
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
    """Fold a model into an engine and run the engine."""
    run_engine(model.engine("", 0, execution), lr.to(execution.main_device))


def run_engine(engine: Engine, lr: Tensor) -> None:
    """Upscale an image strip by strip and drop the strips."""
    for strip in engine.strips(RowStream.from_tensor(lr), 0):
        del strip


def run_unfolded(network: Upsampler, lr: Tensor, z: Tensor, tokens: TokenFeatures) -> Tensor:
    """Run a network as in training, with its mapping network and text transformer."""
    return network(lr, z, tokens)[-1]


def peer_cases(execution: ExecutionPlan) -> list[BenchCase]:
    """Return the cases of Real-ESRGAN's small and large network at 4x.

    Both take one tile. The weights are random: weights do not change times.
    """
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
    """Time one call, in seconds."""
    start = CLOCKS[clock]()
    run()
    if execution.main_device.type == "cuda":
        torch.cuda.synchronize(execution.main_device)
    return CLOCKS[clock]() - start


def count_flops(run: Callable[[], object]) -> float:
    """Count the operations of one call; a multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def bare_convolutions(case: BenchCase, plan: BenchPlan) -> tuple[float, float]:
    """Count and time the convolutions of one call alone, without the other layers.

    The network needs at least this time.

    returns: operations, seconds
    """
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
    """Measure the operations per second of a large matrix product."""
    a = torch.rand(MATMUL_SIDE, MATMUL_SIDE).to(plan.execution.main_device, plan.execution.dtype)
    times = [seconds(lambda: a @ a, plan.execution, plan.clock) for _ in range(plan.repeats + 2)]
    return 2 * MATMUL_SIDE**3 / statistics.median(times[2:])


@torch.inference_mode()
def run_benchmarks(plan: BenchPlan, progress: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """Time all cases in turn: once to warm up, then `repeats` times.

    The warm-up also measures the peak memory.

    progress: called with the name of each case before its call
    returns:  settings and rows, ready for JSON
    """
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
    """Describe a device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type
