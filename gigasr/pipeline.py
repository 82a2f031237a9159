"""SuperResolver: a picture in, the upscaled picture or its strips out."""

import dataclasses
import itertools
import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from gigasr.files.picture import Picture, PictureStrips, RowProgress, fill_transparent, to_gray
from gigasr.files.transpose import transpose, transpose_strips
from gigasr.inference.consistency import correct_strips, scale_detail
from gigasr.inference.devices import ExecutionPlan, choose_devices, choose_dtype
from gigasr.inference.engine import BodyTailEngine, Engine, Model
from gigasr.inference.row_stream import RowStream, resize_rows
from gigasr.models.zoo import DEFAULT_MODEL, load_model
from gigasr.options import Precision, UpscaleOptions
from gigasr.sizes import plan_passes, target_size

logger = logging.getLogger(__name__)

MAX_ROW_WIDTH = 12_288  # px; a wider input, if also wider than high, is upscaled transposed
ROWS_PER_READ = 64  # rows of the input per read


class SuperResolver:
    """One model, ready to upscale pictures.

    >>> resolver = SuperResolver.from_pretrained()
    >>> result = resolver.upscale(read_image(path), prompt="stone arches", scale=8)
    """

    def __init__(
        self,
        model: Model,
        device: str = "auto",
        precision: Precision = "auto",
        tile: int = 0,
        strip: int = 0,
        batch: int = 0,
    ) -> None:
        """Prepare a model for devices and a precision.

        device: "auto", or torch's devices with commas between; one picture is spread over all devices
        tile:   side of the network's tiles in low-res px, 0 = auto
        strip:  low-res rows per strip, 0 = auto
        batch:  tiles per call of the network on each device, 0 = auto
        """
        options = UpscaleOptions(device=str(device), precision=precision, tile=tile, strip=strip, batch=batch)
        devices = choose_devices(options.device)
        dtype = choose_dtype(options.precision, devices[0])
        self.model = model
        self.execution = ExecutionPlan(devices, dtype, options.tile, options.strip, options.batch)
        self.latest: tuple[str, int] = "", 0  # the prompt and seed of the engines
        self.engines: dict[int, Engine] = {}  # by scale

    @classmethod
    def from_pretrained(
        cls, name: str = DEFAULT_MODEL, device: str = "auto", precision: Precision = "auto"
    ) -> "SuperResolver":
        """Load a model by name or path."""
        return cls(load_model(name), device, precision)

    @classmethod
    def from_options(cls, options: UpscaleOptions) -> "SuperResolver":
        """Load the model of the options, with their device, precision and sizes."""
        model = load_model(options.model)
        return cls(model, options.device, options.precision, options.tile, options.strip, options.batch)

    def upscale(
        self,
        picture: Picture,
        prompt: str = "",
        scale: float | None = None,
        size: tuple[int, int] | str | None = None,
        seed: int = 0,
        fidelity: float = 1.0,
        detail: float = 1.0,
        restore: float = 1.0,
        progress: RowProgress | None = None,
    ) -> Picture:
        """Upscale a picture and return the whole result.

        Raises ValueError for a wrong picture or option.

        prompt:   content of the picture; may be empty
        scale:    1..64, also fractions; default without a size: the network's own scale
        size:     instead of a scale (height, width) in px, or in words: "4k"; neither side below the picture's
        seed:     of z and the noise field: the same seed gives the same picture
        fidelity: 0..1, share of the low-res correction; 1 = the downsampled result matches the restored input
        detail:   0..2, gain of the network's detail over bicubic interpolation, before the correction; 0 = none
        restore:  0..1, share of the damage to remove, as found by the network; 0 = none
        progress: called after every strip
        """
        options = UpscaleOptions(
            prompt=prompt,
            scale=scale,
            size=size,
            seed=seed,
            fidelity=fidelity,
            detail=detail,
            restore=restore,
        )
        return self.strips(picture, options).join(progress)

    def strips(self, picture: Picture, options: UpscaleOptions | None = None) -> PictureStrips:
        """Upscale a picture lazily, strip by strip; memory holds only a few strips.

        Raises ValueError for a wrong picture or prompt at once, before the first strip. Memory grows with the width. A
        very wide picture is therefore upscaled transposed, by a temporary file of the whole result: 3 bytes a pixel, 4
        with alpha, twice as many for 16 bit.

        options: None = the defaults; the resolver ignores the options' model, device, precision, tile, strip and batch
        """
        options = options or UpscaleOptions()
        check_picture(picture)
        target = target_size(picture.size, options.scale, options.size, self.model.scale)
        inputs = plan_passes(picture.size, target, self.model.scale)
        first = choose_scale(self.model.scales, *[*inputs, target][:2])
        self.engine(options.prompt, options.seed, first)  # raises errors of the prompt now
        if options.prompt and not self.model.takes_text:
            logger.warning("prompt: ignored, as this model takes no text")
        if picture.size[1] <= max(picture.size[0], MAX_ROW_WIDTH):
            return PictureStrips(target, self._strips(picture, target, options))
        transposed = self._strips(transpose(picture), target[::-1], options)
        return PictureStrips(target, transpose_strips(PictureStrips(target[::-1], transposed)))

    @torch.inference_mode()
    def engine(self, prompt: str, seed: int, scale: int | None = None) -> Engine:
        """Return the model's engine for a prompt, seed and scale.

        The engines of the latest prompt and seed are kept, one per scale.

        scale: None = the model's own
        """
        key = (prompt if self.model.takes_text else "", seed)
        scale = self.model.scale if scale is None else scale
        if key != self.latest:
            self.latest, self.engines = key, {}
        if scale not in self.engines:
            self.engines[scale] = self.model.engine(*key, self.execution, scale)
        return self.engines[scale]

    @torch.inference_mode()
    def _strips(self, picture: Picture, target: tuple[int, int], options: UpscaleOptions) -> Iterator[Picture]:
        opaque = picture.rgb if picture.alpha is None else fill_transparent(picture.rgb, picture.alpha)
        parts = (part[None].to(self.execution.main_device) * 2 - 1 for part in opaque.split(ROWS_PER_READ, dim=1))
        rows = RowStream(picture.size, parts)
        alpha = None if picture.alpha is None else resize_alpha(picture.alpha, target)
        dpi = scale_dpi(picture, target)
        inputs = plan_passes(picture.size, target, self.model.scale)
        for pass_size, next_size in zip(inputs, [*inputs[1:], target], strict=True):
            scale = choose_scale(self.model.scales, pass_size, next_size)
            engine = self.engine(options.prompt, options.seed, scale)
            rows = one_pass(engine, resize_rows(rows, pass_size), options)
            options = dataclasses.replace(options, restore=0.0)  # the result of a pass has no damage
        top = 0
        for strip in resize_rows(rows, target):
            bottom = top + strip.shape[2]
            rgb = strip[0].add_(1).div_(2).clamp_(0, 1).cpu()
            if picture.is_gray:
                rgb = to_gray(rgb).expand(3, -1, -1)
            mask = None if alpha is None else alpha.read(top, bottom)[0].clamp(0, 1)
            yield dataclasses.replace(picture, rgb=rgb, alpha=mask, dpi=dpi)
            del strip, rgb  # else two strips would be in memory
            top = bottom


def one_pass(engine: Engine, lr: RowStream, options: UpscaleOptions) -> RowStream:
    """Upscale an image by the engine's scale, then apply detail and fidelity.

    lr: [1, 3, H, W] in [-1, 1] -> [1, 3, H * scale, W * scale]
    """
    scale = engine.scale
    size = lr.size[0] * scale, lr.size[1] * scale
    is_corrected = options.fidelity > 0 and scale > 1  # at scale 1 the correction would return the input
    if isinstance(engine, BodyTailEngine):
        root, made = engine.restored(lr, options.seed, options.restore)
    else:
        is_read_again = is_corrected or options.detail != 1
        root, made = lr, engine.strips(lr.tee() if is_read_again else lr, options.seed)
    if options.detail != 1:
        made = scale_detail(made, root.tee() if is_corrected else root, scale, options.detail)
    if is_corrected:
        made = correct_strips((strip.clamp_(-1, 1) for strip in made), root, scale, options.fidelity)
    return RowStream(size, made)


def choose_scale(scales: list[int], size: tuple[int, int], target: tuple[int, int]) -> int:
    """Choose the smallest scale that reaches the target, or else the largest.

    scales:       in rising order
    size, target: (height, width), px
    """
    factor = max(target[0] / size[0], target[1] / size[1])
    return next((scale for scale in scales if scale >= factor), scales[-1])


def check_picture(picture: Picture) -> None:
    """Raise ValueError for a wrong picture.

    Wrong are other types, empty images, and values beyond 0..1 or NaN.
    """
    if not isinstance(picture, Picture):
        raise ValueError(f"picture: expected a Picture, got {type(picture).__name__}; read_image reads one from a file")
    if not picture.rgb.numel():
        raise ValueError(f"picture: expected at least 1x1 px, got {picture.size[1]}x{picture.size[0]}; choose another")
    rgb = picture.rgb[: 1 if picture.rgb.stride(0) == 0 else 3]  # torch would copy expanded channels
    for name, values in {"rgb": rgb, "alpha": picture.alpha}.items():
        if values is not None:
            low, high = values.aminmax()
            if not (low >= 0 and high <= 1):
                raise ValueError(f"picture.{name}: expected values in 0..1, got {low:g} to {high:g}; scale or clamp it")


def resize_alpha(alpha: Tensor, size: tuple[int, int]) -> RowStream:
    """Resize an alpha map by plain bicubic interpolation: [1, H, W] -> [1, 1, *size].

    The network would add texture. A constant map stays exactly constant.
    """
    if alpha.amin() < alpha.amax():
        return resize_rows(RowStream.from_tensor(alpha[None]), size)
    row = alpha[None, :, :1, :1].expand(1, 1, 1, size[1])
    return RowStream(size, itertools.repeat(row, size[0]))


def scale_dpi(picture: Picture, size: tuple[int, int]) -> tuple[float, float] | None:
    """Scale the resolution (x, y) so that the printed size stays the same.

    Returns None if the picture has no resolution.
    """
    if picture.dpi is None:
        return None
    return picture.dpi[0] * size[1] / picture.size[1], picture.dpi[1] * size[0] / picture.size[0]
