"""Options of a training beside its config."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gigasr.options import Options, option


@dataclass(frozen=True)
class TrainOptions(Options):
    """Options of a training beside its config."""

    data: str = option("", "Folder with captions.jsonl or .txt files, or a pattern of .tar shards.")
    validation: str | None = option(None, "The same for validation.  [default: the validation split of --data]")
    output: Path | None = None  # folder of the run
    init: str | None = option(None, "Start from a model's weights: a bundled name, a file or a folder.")
    init_discriminator: Path | None = None
    resume: bool = option(False, "Resume from the folder's last state.")
    dry_run: bool = option(False, "Print what the training would cost and stop.")
    gpus: int = option(1, "Number of GPUs for the dry run.", (1, None), needs="dry_run")
    tflops: float = option(150.0, "TFLOP/s that each GPU of the dry run sustains.", (1e-3, None), needs="dry_run")
    days: float | None = option(
        None, "Let the dry run print the speed that finishing in this many days takes.", (1e-3, None), needs="dry_run"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = option("auto", "Device of the networks.", short="-g")
    lpips_features: Path | None = None
