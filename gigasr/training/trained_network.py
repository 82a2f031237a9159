"""A network in training: the module, its replicas, its optimiser and its steps."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from gigasr.config.training import TrainConfig
from gigasr.training.distributed import (
    load_module_state,
    load_optimizer_state,
    module_state,
    optimizer_state,
    syncing,
    whole,
    wrap_ddp,
)
from gigasr.training.losses import weighted_sum
from gigasr.training.optim import parameter_groups

Terms = dict[str, Tensor]  # loss terms, scalars by name
MicroBatch = TypeVar("MicroBatch")
N = TypeVar("N", bound=nn.Module)


class TrainedNetwork(Generic[N]):
    """A module in training with an optimiser.

    The name prefixes the terms in the log: g, d or v.
    """

    def __init__(
        self,
        name: str,
        module: N,
        train: TrainConfig,
        device: torch.device,
        fsdp: bool = False,
        in_part: bool = False,
    ) -> None:
        """Replicate the module and create the optimiser.

        fsdp:    the module already holds shards (FSDP) and needs no replicas
        in_part: some steps use only a part of the module
        """
        self.name, self.module, self.train = name, module, train
        self.network = module if fsdp else wrap_ddp(module, device, in_part)
        self.optimizer = torch.optim.AdamW(parameter_groups(module, train))

    def update(
        self,
        batch: Sequence[MicroBatch],
        make_terms: Callable[[MicroBatch], Terms],
        weights: dict[str, float],
        learning_rate: float,
        betas: tuple[float, float],
    ) -> dict[str, float]:
        """Do one optimiser step on the weighted sum of terms, averaged over micro-batches.

        returns: every term's mean, by `name/term`. Raises RuntimeError with the name of a term, or of the gradient's
                 norm, that is not finite, before the weights change.
        """
        self.optimizer.zero_grad(set_to_none=True)
        log: dict[str, float] = {}
        for i, micro_batch in enumerate(batch):
            is_last = i == len(batch) - 1
            with syncing(self.network, is_last):
                terms = make_terms(micro_batch)
                values = torch.stack([term.detach() for term in terms.values()]).tolist()
                for name, value in zip(terms, values, strict=True):
                    key = f"{self.name}/{name}"
                    log[key] = log.get(key, 0.0) + value / len(batch)
                _check_finite(log)
                total = weighted_sum(list(terms.values()), [weights[name] for name in terms])
                (total / len(batch)).backward()
        for group in self.optimizer.param_groups:
            group["lr"], group["betas"] = learning_rate, betas
        max_norm = self.train.max_grad_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), max_norm)
        _check_finite({f"{self.name}/gradient norm": float(whole(norm))})
        self.optimizer.step()
        return log

    def state(self) -> dict[str, Any]:
        """Return module and optimiser state, whole; every process must call."""
        return {"module": module_state(self.module), "optimizer": optimizer_state(self.module, self.optimizer)}

    def load(self, state: dict[str, Any]) -> None:
        """Load a state of the method `state`."""
        load_module_state(self.module, state["module"])
        load_optimizer_state(self.module, self.optimizer, state["optimizer"])


def _check_finite(log: dict[str, float]) -> None:
    """Raise RuntimeError with the name of the first value that is not finite."""
    for name, value in log.items():
        if not math.isfinite(value):
            raise RuntimeError(f"{name}: expected a finite value, got {value}")


def channels_last(module: N) -> N:
    """Lay out the kernels of a module in channels_last, for faster convolutions."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through a module, without gradients of the parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
