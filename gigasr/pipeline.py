"""SuperResolver: picture in, picture out."""

import dataclasses
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from gigasr.consistency import correct_strips
from gigasr.folding import FoldedUpsampler, fold
from gigasr.picture import Picture, fill_transparent
from gigasr.text import load_tower
from gigasr.tiling import Region, Strip, blend_regions, noise_field, pad_to_multiple, plan_regions, plan_strips
from gigasr.upsampler import Upsampler
from gigasr.zoo import DEFAULT, load_upsampler

MAX_SCALE = 64
WHOLE_BODY = 1024 * 1024  # low-res px up to which the body runs on the whole image
BODY_REGION = 768  # px; side of the body's regions beyond that
STRIP_PIXELS = 2_000_000  # high-res px a strip delivers
Progress = Callable[[int, int], None]  # strips done, strips in all


class SuperResolver:
    """One upsampler, ready to enlarge pictures.

    >>> resolver = SuperResolver.from_pretrained()
    >>> result = resolver.upscale(read_image(path), prompt="stone arches", scale=8)
    """

    def __init__(
        self, network: Upsampler, device: str = "auto", precision: str = "auto", tile: int = 0, strip: int = 0
    ) -> None:
        """tile: side of the body's regions in low-res px, 0 = auto; strip: low-res rows per strip, 0 = auto"""
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        self.network = network.to(self.device)
        text = network.config.text
        self.tower = load_tower(text.tower, text.pretrained or None).to(self.device)
        self.tile, self.strip = tile, strip

    @classmethod
    def from_pretrained(cls, name: str = DEFAULT, device: str = "auto", precision: str = "auto") -> "SuperResolver":
        """Load a model by name or path."""
        return cls(load_upsampler(name), device, precision)

    @torch.inference_mode()
    def upscale(
        self,
        picture: Picture,
        prompt: str = "",
        scale: float | None = None,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        fidelity: float = 1.0,
        progress: Progress | None = None,
    ) -> Picture:
        """Enlarge a picture.

        prompt:   what it shows; may be empty
        scale:    1..64, any number; the network's own scale where neither scale nor size is given
        size:     (height, width) of the result instead, px; neither side below the picture's
        seed:     of z and the noise field: the same seed gives the same picture
        fidelity: 0..1, how far the result is corrected to give the input back when reduced
        progress: called after every strip
        """
        target = target_size(picture.size, scale, size, self.network.scale)
        if not 0 <= fidelity <= 1:
            raise ValueError(f"fidelity: expected 0..1, got {fidelity}; 1 keeps the input's colours exactly")
        folded = self.fold(prompt, seed)
        rgb = picture.rgb if picture.alpha is None else fill_transparent(picture.rgb, picture.alpha)
        x = rgb[None] * 2 - 1
        passes = plan_passes(picture.size, target, folded.scale)
        total = sum(len(self.plan_strips(*pass_size)) for pass_size in passes)
        done = 0

        def strip_done() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total)

        for pass_size in passes:
            x = self.enlarge(folded, resize(x, pass_size), seed, fidelity, strip_done)
        rgb = resize(x, target)[0].add_(1).div_(2).clamp_(0, 1)
        alpha = None if picture.alpha is None else resize(picture.alpha[None], target)[0].clamp_(0, 1)
        return dataclasses.replace(picture, rgb=rgb, alpha=alpha)

    def fold(self, prompt: str, seed: int) -> FoldedUpsampler:
        """Fold the network for one prompt and the z of one seed, in the precision of this resolver."""
        z = torch.randn(1, self.network.config.z_dim, generator=torch.Generator().manual_seed(seed))
        w, text = self.network.condition(z.to(self.device), self.tower.encode([prompt]))
        return fold(self.network, w, text, self.dtype)

    def enlarge(
        self, folded: FoldedUpsampler, lr: Tensor, seed: int, fidelity: float, strip_done: Callable[[], None]
    ) -> Tensor:
        """One pass of the network. lr: [1, 3, H, W] in [-1, 1] on the CPU -> [1, 3, scale H, scale W], on the CPU"""
        height, width = lr.shape[2:]
        features = self.features(folded, lr, seed)
        result = torch.empty(1, 3, height * folded.scale, width * folded.scale)
        top = 0
        for strip in correct_strips(self.tail_strips(folded, features, lr, strip_done), lr, folded.scale, fidelity):
            result[:, :, top : top + strip.shape[2]] = strip
            top += strip.shape[2]
        return result

    def features(self, folded: FoldedUpsampler, lr: Tensor, seed: int) -> Tensor:
        """Run the body, on the whole image or on blended regions. lr: [1, 3, H, W] -> [1, C, H, W] on the device"""
        height, width = lr.shape[2:]

        def process(region: Region) -> Tensor:
            top, left, rows, columns = region
            x = lr[:, :, top : top + rows, left : left + columns]
            x = x + folded.config.input_noise * noise_field(seed, region, 3)
            padded = pad_to_multiple(x, folded.multiple, folded.smallest)
            return folded.body(padded.to(self.device, self.dtype))[:, :, :rows, :columns]

        regions = plan_regions(height, width, *self.body_region(height, width))
        return blend_regions(process, regions, height, width)

    def body_region(self, height: int, width: int) -> tuple[int, int, int]:
        """Side, overlap and alignment of the body's regions, px."""
        config = self.network.config
        if not config.window:  # global attention: regions as in training
            side = self.tile or config.lr_size
            return side, min(side // 4, 16), self.network.multiple
        multiple = config.window * self.network.multiple
        whole = max(height, width) if height * width <= WHOLE_BODY else BODY_REGION
        return max(self.tile or whole, 2 * multiple), multiple, multiple

    def tail_strips(
        self, folded: FoldedUpsampler, features: Tensor, lr: Tensor, strip_done: Callable[[], None]
    ) -> Iterator[Tensor]:
        """Run the tail. features: [1, C, H, W], lr: [1, 3, H, W] -> strips [1, 3, rows * scale, W * scale] in order"""
        for strip in self.plan_strips(*lr.shape[2:]):
            rows = slice(strip.read_top, strip.read_bottom)
            y = folded.tail(features[:, :, rows], lr[:, :, rows].to(self.device))
            top = (strip.top - strip.read_top) * folded.scale
            yield y[:, :, top : top + (strip.bottom - strip.top) * folded.scale].float().cpu()
            strip_done()

    def plan_strips(self, height: int, width: int) -> list[Strip]:
        """Cut the rows of a low-res image into strips for the tail."""
        rows = self.strip or max(8, STRIP_PIXELS // (width * self.network.scale**2))
        return plan_strips(height, rows, self.network.tail_halo)


def target_size(
    picture_size: tuple[int, int], scale: float | None, size: tuple[int, int] | None, default: int
) -> tuple[int, int]:
    """The result's (height, width) from a scale or a size; both given or a size below the picture's is an error."""
    if scale is not None and size is not None:
        raise ValueError("size: expected a scale or a size, got both; give one of them")
    height, width = picture_size
    if size is None:
        scale = default if scale is None else scale
        if not 1 <= scale <= MAX_SCALE:
            raise ValueError(f"scale: expected 1..{MAX_SCALE}, got {scale:g}; enlarge twice for more")
        return round(height * scale), round(width * scale)
    if size[0] < height or size[1] < width:
        raise ValueError(f"size: expected at least {width}x{height} px, got {size[1]}x{size[0]}; gigasr only enlarges")
    if max(size[0] / height, size[1] / width) > MAX_SCALE:
        raise ValueError(f"size: expected at most {MAX_SCALE} times {width}x{height} px, got {size[1]}x{size[0]}")
    return size


def plan_passes(size: tuple[int, int], target: tuple[int, int], scale: int) -> list[tuple[int, int]]:
    """Input sizes of the passes that lead to at least the target; each pass enlarges by `scale`.

    The first pass takes the picture itself. A later one takes what an exact last pass would need, so that no pass
    works on pixels that are thrown away.
    """
    factor = max(target[0] / size[0], target[1] / size[1])
    count = 1
    while scale**count < factor:
        count += 1
    later = [scale ** (count - i) for i in range(1, count)]
    return [size] + [(math.ceil(target[0] / rest), math.ceil(target[1] / rest)) for rest in later]


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """x: [B, C, H, W] -> [B, C, *size], antialiased bicubic; x itself where the size is already right"""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False)


def choose_device(name: str) -> torch.device:
    """ "auto" is CUDA, else Apple's GPU, else the CPU; other names are torch's."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise ValueError(
            f"device: expected auto, cpu, cuda, cuda:N or mps, got '{name}'; is it on this machine?"
        ) from None
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """ "auto" is bf16 where the hardware multiplies it, else fp32."""
    names = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if precision in names:
        return names[precision]
    if precision != "auto":
        raise ValueError(f"precision: expected auto, fp32 or bf16, got '{precision}'")
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        fast = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.bfloat16 if fast else torch.float32
