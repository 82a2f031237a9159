"""The training loop of the upsampler: phases, two optimisers, EMA, resume, log."""

import copy
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Subset
from torchvision.utils import save_image

from gigasr import losses
from gigasr.checkpoint import load_state, save_state, save_weights
from gigasr.config import Config, PhaseConfig
from gigasr.consistency import reduce
from gigasr.data import Crops, Sample
from gigasr.degradation import degrade
from gigasr.discriminator import Discriminator
from gigasr.metrics import Lpips
from gigasr.text import TokenFeatures, load_tower
from gigasr.upsampler import Upsampler


@dataclass(frozen=True)
class Batch:
    hr: Tensor  # [B, 3, H, W] in [-1, 1]
    lr: Tensor  # [B, 3, H / scale, W / scale] in [-1, 1]
    tokens: TokenFeatures  # of B captions
    z: Tensor  # [B, z_dim]


class Trainer:
    """Train an upsampler on a list of captioned images; everything it writes goes into one folder."""

    def __init__(
        self, config: Config, samples: list[Sample], folder: Path, device: torch.device, lpips_features: Path | None
    ) -> None:
        torch.manual_seed(config.train.seed)
        self.config, self.samples, self.folder, self.device = config, samples, folder, device
        text = config.upsampler.text
        self.tower = load_tower(text.tower, text.pretrained or None).to(device)
        self.generator = Upsampler(config.upsampler).to(device)
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.discriminator = Discriminator(config.discriminator).to(device)
        train = config.train
        self.generator_optimizer = torch.optim.AdamW(self.generator.parameters(), weight_decay=train.weight_decay)
        self.discriminator_optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), weight_decay=train.weight_decay
        )
        self.lpips = Lpips("squeeze", features=lpips_features).to(device)
        self.rng = torch.Generator().manual_seed(train.seed)
        self.images_seen = self.step = 0
        self.phase_start = 0  # images seen when the present phase begins

    def train_step(self, batch: Batch, phase: PhaseConfig) -> dict[str, float]:
        """Update both players on one batch; returns the log's values."""
        pyramid = self.generator(batch.lr, batch.z, batch.tokens)
        log: dict[str, float] = {}
        if phase.loss.adversarial:
            log |= self.update("d", self.discriminator_terms(batch, pyramid, phase), phase)
        log |= self.update("g", self.generator_terms(batch, pyramid, phase), phase)
        self.update_ema(len(batch.hr))
        self.step += 1
        self.images_seen += len(batch.hr)
        return log

    def generator_terms(self, batch: Batch, pyramid: Sequence[Tensor], phase: PhaseConfig) -> dict[str, Tensor]:
        """The generator's loss terms by name."""
        weights, fake = phase.loss, pyramid[-1]
        terms = {}
        if weights.l1:
            terms["l1"] = losses.l1(fake, batch.hr)
        if weights.lpips:
            terms["lpips"] = self.lpips(fake, batch.hr).mean()
        if weights.adversarial:
            self.discriminator.requires_grad_(False)
            logits = self.discriminator(pyramid, batch.tokens, batch.lr)
            terms["adversarial"] = losses.adversarial(logits, True, self.discriminator.exit_weights())
            self.discriminator.requires_grad_(True)
        return terms

    def discriminator_terms(self, batch: Batch, pyramid: Sequence[Tensor], phase: PhaseConfig) -> dict[str, Tensor]:
        """The discriminator's loss terms by name; real images are judged with their own captions."""
        d, exit_weights = self.discriminator, self.discriminator.exit_weights()
        real_pyramid = self.real_pyramid(batch.hr)
        penalised = bool(phase.loss.r1) and self.step % self.config.train.r1_every == 0
        for image in real_pyramid:
            image.requires_grad_(penalised)
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
            real = d.exits(real_pyramid, batch.lr)
            real_logits = d.judge(real, batch.tokens)
            terms = {}
            if penalised:
                penalty = losses.r1(real_logits, real_pyramid, exit_weights)
                terms["r1"] = penalty * self.config.train.r1_every
        fake = d.exits([image.detach() for image in pyramid], batch.lr)
        fake_logits = d.judge(fake, batch.tokens)
        terms["adversarial"] = losses.adversarial(real_logits, True, exit_weights) + losses.adversarial(
            fake_logits, False, exit_weights
        )
        if phase.loss.matching:
            wrong = roll(batch.tokens)
            mismatched = [*d.judge(real, wrong), *d.judge(fake, wrong)]
            terms["matching"] = losses.adversarial(mismatched, False, [*exit_weights, *exit_weights])
        return terms

    def real_pyramid(self, hr: Tensor) -> list[Tensor]:
        """hr: [B, 3, H, W] -> antialiased reductions as the generator's pyramid has them, smallest first"""
        factors = [2**i for i in reversed(range(self.config.discriminator.num_levels))]
        return [hr.clone() if factor == 1 else reduce(hr, factor) for factor in factors]

    def update(self, player: str, terms: dict[str, Tensor], phase: PhaseConfig) -> dict[str, float]:
        """One optimiser step on the weighted sum of terms; a non-finite term stops the run and is named."""
        network, optimizer, learning_rate = {
            "g": (self.generator, self.generator_optimizer, phase.generator_lr),
            "d": (self.discriminator, self.discriminator_optimizer, phase.discriminator_lr),
        }[player]
        weights = phase.loss.model_dump()
        if player == "d":
            weights["adversarial"] = 1.0  # the weight is the generator's: it balances the other terms
        log = {f"{player}/{name}": float(term.detach()) for name, term in terms.items()}
        for name, value in log.items():
            if not torch.isfinite(torch.tensor(value)):
                raise RuntimeError(f"train.loss: expected finite terms, got {name} = {value} at step {self.step}")
        for group in optimizer.param_groups:
            group["lr"], group["betas"] = learning_rate * self.decay(phase), phase.betas
        optimizer.zero_grad(set_to_none=True)
        torch.stack([weights[name] * term for name, term in terms.items()]).sum().backward()
        if self.config.train.clip_norm:
            nn.utils.clip_grad_norm_(network.parameters(), self.config.train.clip_norm)
        optimizer.step()
        return log

    def decay(self, phase: PhaseConfig) -> float:
        """The learning rate's factor at this point of the phase."""
        if not phase.decay:
            return 1.0
        return max(1e-2, 1.0 - (self.images_seen - self.phase_start) / phase.images) ** 0.5

    def update_ema(self, images: int) -> None:
        """Move the averaged generator towards the trained one."""
        keep = 0.5 ** (images / min(self.config.train.ema_half_life, max(self.images_seen, 1) * 0.5))
        with torch.no_grad():
            for average, value in zip(self.generator_ema.parameters(), self.generator.parameters(), strict=True):
                average.lerp_(value, 1.0 - keep)

    @property
    def total_images(self) -> int:
        """Images of all phases together."""
        return sum(phase.images for phase in self.config.train.phases)

    def fit(self, progress: Callable[[int, dict[str, float]], None]) -> None:
        """Run what is left of the phases; progress is told of each step's images and log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        end = 0
        for phase in self.config.train.phases:
            self.phase_start, end = end, end + phase.images
            if self.images_seen < end:
                self.fit_phase(phase, end, progress)
        self.save()

    def fit_phase(self, phase: PhaseConfig, end: int, progress: Callable[[int, dict[str, float]], None]) -> None:
        """Run one phase from where the run stands."""
        train, started = self.config.train, time.monotonic()
        for batch in self.batches(phase, end):
            log = self.train_step(batch, phase)
            progress(len(batch.hr), log)
            if self.step % train.log_every == 0:
                self.write_log({"step": self.step, "images": self.images_seen, "s": time.monotonic() - started} | log)
            if self.step % train.sample_every == 0:
                self.save_samples(batch)
            if self.step % train.save_every == 0:
                self.save()

    def batches(self, phase: PhaseConfig, end: int) -> Iterator[Batch]:
        """Yield the phase's remaining batches."""
        train = self.config.train
        crops = Crops(self.samples, phase.crop, end, train.seed, train.max_reduction, train.empty_caption)
        loader = DataLoader(
            Subset(crops, range(self.images_seen, end)),
            phase.batch_size,
            drop_last=False,
            num_workers=train.workers,
            generator=torch.Generator(),  # else making the iterator would move torch's own random state
        )
        for hr, captions in loader:
            hr = hr.to(self.device)
            lr = degrade(hr, self.config.upsampler.scale, train.degraded, self.rng)
            z = torch.randn(len(hr), self.config.upsampler.z_dim, generator=self.rng).to(self.device)
            yield Batch(hr, lr, self.tower.encode(list(captions)), z)

    def write_log(self, row: dict[str, Any]) -> None:
        """Append one line to log.jsonl."""
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({k: round(v, 5) for k, v in row.items()}) + "\n")

    def save_samples(self, batch: Batch, count: int = 4) -> None:
        """Write a grid: enlarged low-res, result, truth in columns."""
        lr, hr = batch.lr[:count], batch.hr[:count]
        tokens = TokenFeatures(batch.tokens.features[:count], batch.tokens.eot[:count], batch.tokens.mask[:count])
        with torch.no_grad():
            fake = self.generator_ema(lr, batch.z[:count], tokens)[-1]
        enlarged = nn.functional.interpolate(lr, hr.shape[2:], mode="bicubic").clamp(-1, 1)
        rows = torch.stack([enlarged, fake.clamp(-1, 1), hr], dim=1).flatten(0, 1)
        path = self.folder / f"samples-{self.images_seen:08d}.png"
        save_image(rows, path, nrow=3, normalize=True, value_range=(-1, 1))

    def save(self) -> None:
        """Write the averaged model (model.safetensors) and all that resuming needs (state.pt)."""
        config = self.config.upsampler.model_dump(mode="json")
        save_weights(
            self.folder / "model.safetensors", self.generator_ema.state_dict(), "upsampler", config, torch.float32
        )
        save_state(
            self.folder / "state.pt",
            {
                "generator": self.generator.state_dict(),
                "generator_ema": self.generator_ema.state_dict(),
                "discriminator": self.discriminator.state_dict(),
                "generator_optimizer": self.generator_optimizer.state_dict(),
                "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
                "rng": self.rng.get_state(),
                "torch_rng": torch.get_rng_state(),
                "images_seen": self.images_seen,
                "step": self.step,
            },
        )

    def resume(self) -> None:
        """Go on from the folder's state.pt."""
        state = load_state(self.folder / "state.pt")
        for name in ("generator", "generator_ema", "discriminator", "generator_optimizer", "discriminator_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.rng.set_state(state["rng"])
        torch.set_rng_state(state["torch_rng"])
        self.images_seen, self.step = state["images_seen"], state["step"]


def roll(tokens: TokenFeatures) -> TokenFeatures:
    """Give every sample its neighbour's caption."""
    return TokenFeatures(tokens.features.roll(1, 0), tokens.eot.roll(1, 0), tokens.mask.roll(1, 0))


def count_parameters(config: Config) -> dict[str, int]:
    """Parameters of every part of both networks, and of each as a whole; nothing is allocated."""
    with torch.device("meta"):
        networks = {"generator": Upsampler(config.upsampler), "discriminator": Discriminator(config.discriminator)}
    counts: dict[str, int] = {}
    for name, network in networks.items():
        parts = {f"{name}.{part}": child for part, child in network.named_children()} | {name: network}
        counts |= {part: sum(p.numel() for p in module.parameters()) for part, module in parts.items()}
    return counts
