"""Captions: read from lists or text files, and shuffled for the matching loss."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gigasr.files.formats import STILL_SUFFIXES, visible_files
from gigasr.files.text_file import read_text


@dataclass(frozen=True)
class Sample:
    """An image of a folder with its captions."""

    path: Path
    captions: tuple[str, ...]


class CaptionRow(NamedTuple):
    """One line of a captions.jsonl."""

    file: str  # name of the image, relative to the list
    captions: tuple[str, ...]  # at least one, which may be empty
    fields: dict[str, Any]  # the whole line: split, width, height, scores


def read_rows(index: Path) -> Iterator[CaptionRow]:
    """Yield the lines of a captions.jsonl.

    A line is an object with `file` and `prompt`, or with `file` and a list of `captions`. An empty list stands for one
    empty caption. Raises ValueError, naming the line, for anything else.
    """
    for number, line in enumerate(read_text(index).split("\n"), start=1):
        if line.strip():
            try:
                fields = json.loads(line)
                texts = [fields["prompt"]] if "prompt" in fields else fields["captions"]
                if not isinstance(texts, list) or not all(isinstance(text, str) for text in [fields["file"], *texts]):
                    raise TypeError
            except (ValueError, LookupError, TypeError):
                raise ValueError(
                    f"{index}: expected an object with file and prompt, or with file and a list of captions, in line "
                    f"{number}, got '{line.strip()[:80]}'; correct it"
                ) from None
            yield CaptionRow(fields["file"], tuple(texts) or ("",), fields)


def indexed_samples(index: Path) -> Iterator[tuple[Sample, dict[str, Any]]]:
    """Yield the samples of a captions.jsonl, each with all fields of its line."""
    for row in read_rows(index):
        yield Sample(index.parent / row.file, row.captions), row.fields


def sidecar_samples(folder: Path, split: str | None) -> Iterator[tuple[Sample, dict[str, Any]]]:
    """Yield all images of a folder, each with its text file's caption.

    split: entered in the fields of every image, so all images belong to the split
    """
    for path in visible_files(folder, STILL_SUFFIXES):
        yield Sample(path, (sidecar_caption(path),)), {"split": split}


def sidecar_caption(path: Path) -> str:
    """Read the .txt file beside an image; an empty caption without one."""
    text = path.with_suffix(".txt")
    return read_text(text).strip() if text.exists() else ""


def shuffle_captions(captions: Sequence[str], rng: torch.Generator) -> Tensor:
    """Draw a mismatched caption for each sample of the matching loss.

    Equal captions lie side by side in an otherwise random circle. The circle is turned by the size of the largest
    group. Thus no sample gets a copy of its own caption, unless one caption fills more than half the batch.

    captions: B captions
    rng:      on the CPU
    returns:  [B] long  a permutation without a fixed point; [0] for B = 1
    """
    groups: dict[str, list[int]] = {}
    for index in torch.randperm(len(captions), generator=rng).tolist():
        groups.setdefault(captions[index], []).append(index)
    circle = torch.tensor([index for group in groups.values() for index in group])
    turn = max(len(group) for group in groups.values()) if len(groups) > 1 else 1
    order = torch.empty_like(circle)
    order[circle] = circle.roll(-turn)
    return order


def mismatch_mask(captions: Sequence[str], order: Tensor) -> Tensor:
    """captions: B captions, order: [B] long -> [B] bool, True = the caption at order[i] is mismatched to sample i

    False where both captions are equal, or the other is empty (an empty caption contradicts no image).
    """
    return torch.tensor([captions[other] not in (own, "") for own, other in zip(captions, order.tolist(), strict=True)])
