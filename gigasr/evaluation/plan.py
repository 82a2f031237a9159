"""The rows of an evaluation: every low-res input with every prompt."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from gigasr.evaluation.options import EvalOptions, LowResKind, Prompts
from gigasr.evaluation.settings import EvalSettings
from gigasr.evaluation.upscalers import unique_labels

WORDS: dict[Prompts, str] = {"right": "right prompt", "none": "no prompt", "wrong": "wrong prompt"}


def name_inputs(sources: Sequence[str]) -> dict[str, LowResKind | Path]:
    """Name the low-res inputs: kinds by their word, folders by `unique_labels`.

    Raises ValueError if two inputs share a name.
    """
    kinds: dict[str, LowResKind] = {kind: kind for kind in get_args(LowResKind)}
    folders = [source for source in sources if source not in kinds]
    names = unique_labels(folders) if folders else {}
    if taken := set(sources).difference(folders).intersection(names.values()):
        raise ValueError(f"lr: expected inputs of different names, got '{taken.pop()}' twice; rename the folder")
    return {names.get(source, source): kinds.get(source, Path(source)) for source in sources}


def name_prompts(options: EvalOptions) -> dict[str, EvalSettings]:
    """Map the name of every prompt to the settings with that prompt."""
    shared = EvalSettings(options.scale, square=options.square, upscale=options.upscale)
    if not options.given:
        return {WORDS[choice]: replace(shared, prompts=choice) for choice in options.prompts}
    found = {}
    for text in options.given:
        upscale = replace(options.upscale, prompt=text)
        found[f'"{text}"' if text else WORDS["none"]] = replace(shared, prompts="given", upscale=upscale)
    return found


def plan_settings(options: EvalOptions) -> dict[str, EvalSettings]:
    """Return the settings of each row, by the row's label.

    A label names the input, the prompt or both, whichever differ between rows; a single row has "".
    """
    inputs, prompts = name_inputs(options.low_res), name_prompts(options)
    settings_by_label = {}
    for (name, low_res), (words, settings) in itertools.product(inputs.items(), prompts.items()):
        parts = []
        if len(inputs) > 1:
            parts.append(name)
        if len(prompts) > 1:
            parts.append(words)
        settings_by_label[", ".join(parts)] = replace(settings, low_res=low_res)
    return settings_by_label
