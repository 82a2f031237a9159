"""Timings: the bundled network against Real-ESRGAN's small one, interleaved in one run, medians."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from gigasr.images import Picture
from gigasr.metrics import import_basicsr
from gigasr.pipeline import SuperResolver

SIZES = (128, 512)  # px; low-res sides, enlarged 8 times by lite


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def compact(device: torch.device, dtype: torch.dtype) -> nn.Module:
    """SRVGGNetCompact(64, 32) at 4x, the network of realesr-general-x4v3, with random weights: times are the same."""
    import_basicsr()
    from basicsr.archs.srvgg_arch import SRVGGNetCompact

    network = SRVGGNetCompact(num_feat=64, num_conv=32, upscale=4, act_type="prelu")
    return network.eval().requires_grad_(False).to(device, dtype, memory_format=torch.channels_last)


def run_tiles(network: nn.Module, tile: Tensor, count: int) -> None:
    """Run a network on one tile as often as a picture has tiles."""
    for _ in range(count):
        network(tile)


@torch.inference_mode()
def run(device: str, repeats: int) -> str:
    """Time whole pictures through lite's pipeline and the bare compact network, in turn; returns a table."""
    resolver = SuperResolver.from_pretrained(device=device)
    home, dtype = resolver.place.home, resolver.place.dtype
    peer = compact(home, dtype)
    lines = [f"{'':<26}{'s':>9}{'s / MP':>9}   ({home}, {str(dtype).removeprefix('torch.')})"]
    for side in SIZES:
        picture = Picture(torch.rand(3, side, side))
        peer_side = side * 2  # the same number of output pixels from 4x
        tile: Tensor = torch.rand(1, 3, min(peer_side, 256), min(peer_side, 256)).to(home, dtype)
        tiles = (peer_side // tile.shape[2]) ** 2
        jobs: dict[str, Callable[[], object]] = {
            f"upsampler_lite {side}->{side * 8}": partial(resolver.upscale, picture),
            f"compact 4x {peer_side}->{side * 8}": partial(run_tiles, peer, tile, tiles),
        }
        times: dict[str, list[float]] = {name: [] for name in jobs}
        for repeat in range(repeats + 1):
            for name, job in jobs.items():
                elapsed = seconds(job, home)
                if repeat:  # the first is a warm-up
                    times[name].append(elapsed)
        medians = {name: statistics.median(values) for name, values in times.items()}
        lines += [f"{name:<26}{t:>9.2f}{t / ((side * 8) ** 2 / 1e6):>9.3f}" for name, t in medians.items()]
        ours, theirs = medians.values()
        lines.append(f"{'ratio':<26}{ours / theirs:>9.2f}")
    return "\n".join(lines)
