"""A frozen CLIP image tower and the vision-aided discriminator of GigaGAN.

The tower also serves the contrastive loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigasr.config.training import VisionConfig
from gigasr.networks.blocks import AdaptiveConv2d, EqualizedConv2d, scale_styles
from gigasr.networks.ops import resize
from gigasr.networks.text import TextTransformer, TokenFeatures, create_clip, reads_clip_tokens, tokenize

if TYPE_CHECKING:
    from open_clip import CLIP

STYLE_STD = 0.1  # of the weights from t_D to styles at the start
PROJECTION_SEED = 2303_05511  # of the fixed random projections: the same in every process and run


def create_vit(name: str, pretrained: str | None) -> CLIP:
    """Build an open_clip model with a vision transformer; see text.create_clip.

    Raises ValueError for other models, and for text towers that do not read CLIP tokens.
    """
    import open_clip

    config = open_clip.get_model_config(name)
    is_vit = config is not None and isinstance(config["vision_cfg"].get("layers"), int)
    if not (is_vit and reads_clip_tokens(config["text_cfg"])):
        raise ValueError(
            f"tower: expected an open_clip model with a vision transformer that reads CLIP tokens, got {name!r}; "
            "choose another one of open_clip.list_models(), e.g. ViT-B-32"
        )
    return create_clip(name, pretrained)


class ImageTower(nn.Module):
    """A frozen open_clip model for images in [-1, 1] of any size.

    Gradients pass through the model to the image.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, pretrained: str | None) -> None:
        super().__init__()
        self.model = create_vit(name, pretrained)
        visual = self.model.visual
        self.size: tuple[int, int] = tuple(visual.image_size)
        self.width: int = visual.conv1.out_channels
        self.depth = len(visual.transformer.resblocks)
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(visual.preprocess_cfg[key]).view(3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def prepare(self, images: Tensor) -> Tensor:
        """Resize to the tower's size, antialiased bicubic, and normalise.

        images:  [B, 3, H, W] in [-1, 1]
        returns: [B, 3, h, w]  in the tower's own range

        Differs from open_clip: a non-square image is squeezed, not cropped, so every pixel counts.
        """
        images = resize(images, self.size)
        return (0.5 * images + 0.5 - self.mean) / self.std

    def maps(self, images: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Run the image tower up to the last of the chosen blocks.

        images:  [B, 3, H, W] in [-1, 1]
        layers:  increasing numbers of blocks, counted from 1
        returns: per layer, [B, width, h, w]  the block's patch tokens, without the class token
        """
        output = self.model.visual.forward_intermediates(
            self.prepare(images), [layer - 1 for layer in layers], stop_early=True, intermediates_only=True
        )
        return output["image_intermediates"]

    def embed_images(self, images: Tensor) -> Tensor:
        """images: [B, 3, H, W] in [-1, 1] -> [B, D] unit vectors"""
        return self.model.encode_image(self.prepare(images), normalize=True)

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> Tensor:
        """Embed B prompts as [B, D] unit vectors, truncated at 77 tokens."""
        return self.model.encode_text(tokenize(texts)[0].to(self.mean.device), normalize=True)

    @property
    def scale(self) -> Tensor:
        """The learned factor of the cosine similarities, a scalar; CLIP's is 100."""
        return self.model.logit_scale.exp()


class Projection(nn.Module):
    """A fixed random mix of the tower's channels.

    Without the mix, heads would pick the few channels that tell real from fake at once. Each token is normalised first,
    because the scale of the tower's residual stream changes with every block.

    Source: Projected GAN (arXiv:2111.01007), random 1x1 convolutions; GigaGAN's vision-aided loss has one per layer.
    """

    matrix: Tensor

    def __init__(self, width: int, channels: int, rng: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.randn(channels, width, generator=rng, device="cpu") * width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, width, h, w] of the tower -> [B, C, h, w] of about unit variance"""
        tokens = x.permute(0, 2, 3, 1)
        return F.linear(F.layer_norm(tokens, tokens.shape[3:]), self.matrix).permute(0, 3, 1, 2)


class FeatureDiscriminatorHead(nn.Module):
    """Logits of one layer: 3x3 convolutions, then two predictions.

    The first prediction is modulated by t_D, the second is unconditional. The paper (arXiv:2303.05511, vision-aided
    loss) gives neither depth nor width.
    """

    def __init__(self, channels: int, text_dim: int) -> None:
        super().__init__()
        self.conv = EqualizedConv2d(channels, channels, 3, activate=True)
        self.psi = AdaptiveConv2d(channels, channels, 3, text_dim)
        self.to_logit = AdaptiveConv2d(channels, 1, 3, text_dim, demodulated=False, activate=False)
        self.unconditional = EqualizedConv2d(channels, 1, 3)

    def forward(self, x: Tensor, t_global: Tensor) -> Tensor:
        """x: [B, C, h, w] projected, t_global: [B, D] -> logits [B, 1, h, w]"""
        x = self.conv(x)
        return self.to_logit(self.psi(x, t_global), t_global) + self.unconditional(x)


class VisionDiscriminator(nn.Module):
    """Image and text -> logits, high = real, on a frozen image tower's features.

    The tower is no submodule: state_dict(), parameters() and requires_grad_() cover only the trained parts and the
    projections. So checkpoints, optimisers and processes never copy or train the tower. `.to()` moves it too.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.frozen = (ImageTower(config.tower, config.pretrained),)  # nn.Module does not look into tuples
        self.check_layers()
        text, rng = config.text, torch.Generator().manual_seed(PROJECTION_SEED)
        self.text_transformer = TextTransformer(
            text.tower_width, text.dim, text.depth, text.num_heads, text.learning_rate_multiplier
        )
        width, channels = self.tower.width, config.channels
        self.projections = nn.ModuleList(Projection(width, channels, rng) for _ in config.layers)
        self.heads = nn.ModuleList(FeatureDiscriminatorHead(channels, text.dim) for _ in config.layers)
        scale_styles(self.heads, STYLE_STD)

    @property
    def tower(self) -> ImageTower:
        """The frozen tower; the contrastive loss may share it."""
        return self.frozen[0]

    def check_layers(self) -> None:
        """Raise ValueError unless the config's layers are blocks of the tower."""
        layers, depth = self.config.layers, self.tower.depth
        if not layers or list(layers) != sorted(set(layers) & set(range(1, depth + 1))):
            raise ValueError(
                f"vision.layers: expected increasing numbers from 1 to {depth}, got {layers}; "
                f"choose among the blocks of {self.config.tower}"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> VisionDiscriminator:
        self.tower._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def head_weights(self) -> list[float]:
        """Return the weight of each logit map: equal weights of sum 1."""
        return [1.0 / len(self.heads)] * len(self.heads)

    def features(self, images: Tensor) -> list[Tensor]:
        """images: [B, 3, H, W] in [-1, 1] -> per layer, [B, C, h, w]; the text is not needed yet"""
        maps = self.tower.maps(images, self.config.layers)
        return [projection(x) for projection, x in zip(self.projections, maps, strict=True)]

    def predict(self, features: Sequence[Tensor], tokens: TokenFeatures) -> list[Tensor]:
        """features: of `features`, tokens: of B prompts -> one logit map [B, 1, h, w] per layer"""
        t_global = self.text_transformer(tokens).t_global
        return [head(x, t_global) for head, x in zip(self.heads, features, strict=True)]

    def forward(self, images: Tensor, texts: Sequence[TokenFeatures]) -> list[list[Tensor]]:
        """images: [B, 3, H, W] in [-1, 1], texts: each of B prompts -> per text, one logit map per layer"""
        features = self.features(images)
        return [self.predict(features, tokens) for tokens in texts]
