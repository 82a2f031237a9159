"""Frozen text towers, and GigaGAN's learned text transformer T.

Source: GigaGAN (arXiv:2303.05511).
"""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from gigasr.networks.blocks import EqualizedLinear

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from open_clip import CLIP
    from open_clip.tokenizer import SimpleTokenizer

CONTEXT_LENGTH = 77  # tokens, start and end tokens included; CLIP's context
VOCABULARY_SIZE = 49408  # tokens of CLIP's byte-pair encoding
WEIGHTS = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True)
class TokenFeatures:
    """A frozen tower's features of each token of a prompt."""

    features: Tensor  # [B, T, D]; output of the tower
    eot: Tensor  # [B] long; index of the end-of-text token
    mask: Tensor  # [B, T] bool; True = real token, start and end tokens included


@dataclass(frozen=True)
class TextFeatures:
    """Text features for the networks.

    Cross-attention reads t_local; the mapping network and the discriminator read t_global.
    """

    t_local: Tensor  # [B, T, D]
    t_global: Tensor  # [B, D]; the end-of-text token's element of T's output
    mask: Tensor  # [B, T] bool; True = real token other than end-of-text


@functools.cache
def clip_tokenizer() -> SimpleTokenizer:
    """Return CLIP's byte-pair tokenizer, which ships inside open_clip.

    Only its file is run: the package also imports torchvision and timm, slower to import than torch itself.
    """
    package = importlib.util.find_spec("open_clip")
    if package is None or package.origin is None:
        raise ImportError("open_clip: expected the package open_clip_torch, got none; run pip install open_clip_torch")
    spec = importlib.util.spec_from_file_location("open_clip.tokenizer", Path(package.origin).with_name("tokenizer.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SimpleTokenizer(context_length=CONTEXT_LENGTH)


def count_tokens(text: str) -> int:
    """Count a prompt's tokens, start and end included; CONTEXT_LENGTH is the limit."""
    return len(clip_tokenizer().encode(text)) + 2


def warn_of_cut(text: str) -> None:
    """Warn of a text above CONTEXT_LENGTH: the tower reads only its beginning."""
    if (count := count_tokens(text)) > CONTEXT_LENGTH:
        logger.warning("prompt: cut to %d of %d tokens: '%.30s...'", CONTEXT_LENGTH - 2, count - 2, text)


def tokenize(texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Turn prompts into CLIP tokens.

    texts:   B prompts; longer ones are truncated, but keep their end-of-text token
    returns: tokens [B, 77] long, eot [B] long, mask [B, 77] bool True up to and including end-of-text
    """
    if not texts:
        raise ValueError("texts: expected at least 1 prompt, got 0; pass [''] for an empty prompt")
    tokens = clip_tokenizer()(texts)
    eot = tokens.argmax(dim=1)  # end-of-text has the highest id
    mask = torch.arange(tokens.shape[1]) <= eot[:, None]
    return tokens, eot, mask


class TransformerBlock(nn.Module):
    """Pre-norm transformer block: masked self-attention, then a 4x wide MLP."""

    def __init__(self, dim: int, num_heads: int, linear: Callable[[int, int], nn.Module] = nn.Linear) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads: expected a divisor of dim {dim}, got {num_heads}; change one of them")
        self.num_heads = num_heads
        self.norm_attention = nn.LayerNorm(dim)
        self.to_qkv = linear(dim, 3 * dim)
        self.to_out = linear(dim, dim)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp_in = linear(dim, 4 * dim)
        self.mlp_out = linear(4 * dim, dim)

    def attend(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: [B, T, D], mask: [B, T] True = may be attended to -> [B, T, D]"""
        heads = self.to_qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [3, B, heads, T, d]
        q, k, v = heads.unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        return self.to_out(out.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: [B, T, D], mask: [B, T] True = real token -> [B, T, D]"""
        x = x + self.attend(self.norm_attention(x), mask)
        return x + self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x))))


class LiteTower(nn.Module):
    """Small text tower of the bundled models, distilled from a sentence encoder.

    The token embedding is factorised, the attention full. The projected end-of-text feature lies in the space of the
    sentence encoder.
    """

    def __init__(
        self, width: int = 256, depth: int = 3, num_heads: int = 4, embedding_dim: int = 64, sentence_dim: int = 384
    ) -> None:
        super().__init__()
        self.width = width
        self.token_embedding = nn.Embedding(VOCABULARY_SIZE, embedding_dim)
        self.from_embedding = nn.Linear(embedding_dim, width, bias=False)
        self.positions = nn.Parameter(torch.randn(CONTEXT_LENGTH, width) * 0.02)
        self.blocks = nn.ModuleList(TransformerBlock(width, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.to_sentence = nn.Linear(width, sentence_dim, bias=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """tokens: [B, T] long, mask: [B, T] True = real token -> [B, T, width]"""
        x = self.from_embedding(self.token_embedding(tokens)) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    def sentences(self, tokens: Tensor, eot: Tensor, mask: Tensor) -> Tensor:
        """tokens: [B, T] long, eot: [B] long, mask: [B, T] -> [B, sentence_dim] of unit length"""
        return F.normalize(self.to_sentence(gather_tokens(self(tokens, mask), eot)), dim=1)

    @torch.no_grad()
    def encode(self, texts: list[str]) -> TokenFeatures:
        """Encode B prompts; T is the longest prompt's length, without an effect on values."""
        tokens, eot, mask = self._trimmed(texts)
        return TokenFeatures(self(tokens, mask), eot, mask)

    @torch.no_grad()
    def encode_sentences(self, texts: list[str]) -> Tensor:
        """Embed B prompts as [B, sentence_dim] unit vectors; dot products compare them."""
        return self.sentences(*self._trimmed(texts))

    def _trimmed(self, texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        tokens, eot, mask = tokenize(texts)
        length = int(eot.max()) + 1
        device = self.positions.device
        return tokens[:, :length].to(device), eot.to(device), mask[:, :length].to(device)


class OpenClipTower(nn.Module):
    """Penultimate layer of an open_clip text tower, frozen.

    The paper uses OpenClipTower("ViT-L-14", "openai"). pretrained: see create_clip
    """

    def __init__(self, name: str, pretrained: str | None) -> None:
        super().__init__()
        import open_clip

        config = open_clip.get_model_config(name)
        if config is None or not reads_clip_tokens(config["text_cfg"]):
            raise ValueError(
                f"text.name: expected 'text_lite' or an open_clip model that reads {CONTEXT_LENGTH} CLIP tokens, "
                f"got {name!r}; choose another one of open_clip.list_models()"
            )
        model = create_clip(name, pretrained)
        text = getattr(model, "text", model)
        self.token_embedding = text.token_embedding
        self.positions = text.positional_embedding
        self.blocks = text.transformer.resblocks[:-1]
        self.register_buffer("attention_mask", text.attn_mask, persistent=False)
        self.width = text.token_embedding.embedding_dim
        self.eval().requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: [B, 77] long -> [B, 77, width], the last block's input"""
        x = self.token_embedding(tokens) + self.positions
        for block in self.blocks:
            x = block(x, attn_mask=self.attention_mask)
        return x

    @torch.no_grad()
    def encode(self, texts: list[str]) -> TokenFeatures:
        """Encode B prompts; T is 77."""
        tokens, eot, mask = (tensor.to(self.positions.device) for tensor in tokenize(texts))
        return TokenFeatures(self(tokens), eot, mask)


def create_clip(name: str, pretrained: str | None) -> CLIP:
    """Build an open_clip model.

    pretrained: a tag of open_clip, a local checkpoint, or None for random weights

    open_clip fetches a tag's weights and takes the activation that they were trained with. With a file, the name must
    give the activation ("...-quickgelu").
    """
    import open_clip

    quick_gelu = bool(pretrained) and open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu", False)
    return open_clip.create_model(name, pretrained=pretrained, force_quick_gelu=quick_gelu)


def reads_clip_tokens(text_config: dict[str, Any]) -> bool:
    """Tell whether an open_clip text tower reads the tokens of tokenize()."""
    length = text_config.get("context_length", CONTEXT_LENGTH)
    return length == CONTEXT_LENGTH and "hf_tokenizer_name" not in text_config


def load_lite_tower(path: Path) -> LiteTower:
    """Load a LiteTower, frozen, from a file of scripts/train_text_lite.py."""
    with safe_open(path, framework="pt") as file:
        tower = LiteTower(**json.loads(file.metadata()["config"]))
        tower.load_state_dict({key: file.get_tensor(key).float() for key in file.keys()})  # noqa: SIM118
    return tower.eval().requires_grad_(False)


def load_tower(name: str, pretrained: str | None = None) -> LiteTower | OpenClipTower:
    """Load a frozen text tower: the bundled "text_lite", or open_clip's of that name."""
    if name == "text_lite":
        return load_lite_tower(WEIGHTS / "text_lite.safetensors")
    return OpenClipTower(name, pretrained)


class TextFeatureCache:
    """A frozen tower that keeps its features of each prompt, for repeated captions."""

    def __init__(self, tower: LiteTower | OpenClipTower) -> None:
        self.tower = tower
        self.cache: dict[str, Tensor] = {}  # [T, D], end-of-text last

    def encode(self, texts: list[str]) -> TokenFeatures:
        """Encode B prompts; T is the longest prompt's length."""
        new = [text for text in dict.fromkeys(texts) if text not in self.cache]
        if new:
            tokens = self.tower.encode(new)
            for text, features, eot in zip(new, tokens.features, tokens.eot.tolist(), strict=True):
                self.cache[text] = features[: eot + 1].clone()
        features = [self.cache[text] for text in texts]
        eot = torch.tensor([len(rows) - 1 for rows in features], device=features[0].device)
        mask = torch.arange(int(eot.max()) + 1, device=eot.device) <= eot[:, None]
        return TokenFeatures(nn.utils.rnn.pad_sequence(features, batch_first=True), eot, mask)


def gather_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Pick one token per sample.

    x:       [B, T, D]
    index:   [B] long
    returns: [B, D]
    """
    return x[torch.arange(x.shape[0], device=x.device), index]


class TextTransformer(nn.Module):
    """The learned text module T: attention blocks on a frozen tower's features.

    Source: GigaGAN (arXiv:2303.05511), text conditioning; t_global is the element at the end-of-text token,
    t_local all others. The paper gives neither the block's form nor the learning-rate multiplier.
    """

    def __init__(
        self, in_dim: int, dim: int, depth: int, num_heads: int, learning_rate_multiplier: float = 0.01
    ) -> None:
        super().__init__()
        self.from_tower = nn.Identity() if in_dim == dim else EqualizedLinear(in_dim, dim)
        linear = functools.partial(EqualizedLinear, learning_rate_multiplier=learning_rate_multiplier)
        self.blocks = nn.ModuleList(TransformerBlock(dim, num_heads, linear) for _ in range(depth))

    def forward(self, tokens: TokenFeatures) -> TextFeatures:
        """features: [B, T, in_dim], eot: [B], mask: [B, T] -> t_local: [B, T, dim], t_global: [B, dim], mask: [B, T]"""
        x = self.from_tower(tokens.features)
        for block in self.blocks:
            x = block(x, tokens.mask)
        position = torch.arange(x.shape[1], device=x.device)
        return TextFeatures(x, gather_tokens(x, tokens.eot), tokens.mask & (position != tokens.eot[:, None]))
