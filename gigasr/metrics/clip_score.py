"""CLIP score: agreement of image and prompt, by GigaGAN's protocol.

Source: GigaGAN (arXiv:2303.05511).
"""

import torch
from torch import Tensor

from gigasr.errors import DAMAGED_WEIGHTS, join_lines
from gigasr.networks.text import create_clip
from gigasr.pixels import to_uint8

PREFIX = "A photo depicts "


class ClipScore:
    """Cosine of an image and its prompt in an open_clip model.

    `ClipScore("ViT-B-32:openai")` fetches weights; `ClipScore("ViT-B-32:weights.pt")` reads a local file. The paper's
    tables use ViT-g-14:laion2b_s12b_b42k, its ablation ViT-B-32:openai. Raises ValueError for unknown models and
    unreadable weights.
    """

    def __init__(self, source: str, device: torch.device | str = "cpu") -> None:
        import open_clip
        from open_clip.transform import PreprocessCfg, image_transform_v2

        name, _, pretrained = source.partition(":")
        if name not in open_clip.list_models() or not pretrained:
            raise ValueError(
                f"clip: expected MODEL:WEIGHTS with a model of open_clip, got '{source}'; e.g. ViT-B-32:openai"
            )
        self.device = torch.device(device)
        try:
            model = create_clip(name, pretrained)
        except (OSError, *DAMAGED_WEIGHTS) as error:
            reason = join_lines(str(error))[:200]
            raise ValueError(
                f"clip: expected the weights {source}, got '{reason}'; go online, or give a file of them, {name}:FILE"
            ) from None
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.tokenize = open_clip.get_tokenizer(name)
        self.prepare = image_transform_v2(PreprocessCfg(**self.model.visual.preprocess_cfg), is_train=False)

    @torch.inference_mode()
    def __call__(self, image: Tensor, prompt: str) -> float:
        """image: [3, H, W] in [0, 1], rounded to 8 bit; CLIP reads the central square -> cosine, -1..1"""
        from torchvision.transforms.functional import to_pil_image

        pixels = self.prepare(to_pil_image(to_uint8(image)))
        tokens = self.tokenize([PREFIX + prompt])
        seen = self.model.encode_image(pixels[None].to(self.device), normalize=True)
        said = self.model.encode_text(tokens.to(self.device), normalize=True)
        return float((seen * said).sum())
