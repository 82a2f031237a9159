"""Options are checked once, and what is made from their fields knows every one of them."""

import inspect
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from gigasr.cli import main
from gigasr.cli.fields import read_options
from gigasr.evaluation.options import EvalOptions
from gigasr.folders.job_runner import fingerprint_parts
from gigasr.options import STRENGTHS, UpscaleOptions
from gigasr.pipeline import SuperResolver
from gigasr.training.options import TrainOptions
from gigasr_base.options import T2IOptions

OTHER_VALUES: dict[str, Any] = {  # of every option of an upscale, not its default
    **{"prompt": "a dog", "scale": 3.0, "size": "64x64", "seed": 1, "precision": "bf16"},
    **{"fidelity": 0.5, "detail": 0.5, "restore": 0.5, "tile": 64, "quality": 50, "bit_depth": 16},
    **{"batch": 2, "strip": 4, "device": "cpu", "overwrite": True},
}
WITHOUT_EFFECT = {"batch", "strip", "device", "overwrite"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fidelity": 1.5}, "fidelity: expected 0..1, got 1.5; 1 keeps the input's colours exactly"),
        ({"detail": -0.1}, "detail: expected 0..2, got -0.1; 1 is what the network was trained for"),
        ({"restore": float("nan")}, "restore: expected 0..1, got nan; 0 keeps the input's noise and damage"),
        ({"restore": "1"}, "restore: expected 0..1, got '1'; 0 keeps the input's noise and damage"),
        ({"restore": None}, "restore: expected 0..1, got None; 0 keeps the input's noise and damage"),
        ({"scale": 65}, "scale: expected 1..64, got 65; upscale twice for more"),
        ({"size": "big"}, "size: expected a side in px, 1k, 2k, 4k, 8k, 16k or WIDTHxHEIGHT, got 'big'"),
        ({"size": (3, 4.5)}, "size: expected (height, width) in whole px, got (3, 4.5); scale takes a factor"),
        ({"size": "4k", "scale": 2}, "size: expected a scale or a size, got both; give one of them"),
        ({"seed": 1.0}, "seed: expected an integer, got 1.0; 0 is as good as any"),
        ({"prompt": None}, "prompt: expected a text, got NoneType; '' says nothing"),
        ({"tile": -1}, "tile: expected at least 0, got -1; 0 = auto"),
        ({"batch": 1.5}, "batch: expected at least 0, got 1.5; 0 = auto"),
        ({"precision": "fp8"}, "precision: expected auto, fp32 or bf16, got 'fp8'; leave it out"),
        ({"bit_depth": 12}, "bit_depth: expected 8 or 16, got 12; leave it out"),
        ({"quality": 0}, "quality: expected 1..100, got 0; 100 is best"),
        ({"overwrite": "yes"}, "overwrite: expected bool, got str; leave it out"),
    ],
)
def test_a_wrong_value_is_one_line_that_says_what_to_do(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        UpscaleOptions(**values)
    assert str(caught.value) == message
    with pytest.raises(ValueError):
        replace(UpscaleOptions(), **values)


def test_numbers_of_any_type_become_pythons() -> None:
    options = UpscaleOptions(
        seed=np.int64(3), detail=1, restore=np.float32(0.5), scale=torch.tensor(2), tile=np.uint8(64)
    )  # type: ignore[arg-type]
    values = options.seed, options.detail, options.restore, options.scale, options.tile
    assert values == (3, 1.0, 0.5, 2.0, 64)
    assert [type(value) for value in values] == [int, float, float, float, int]


def test_options_cannot_be_changed_and_equal_ones_are_one_key() -> None:
    options = UpscaleOptions(prompt="a dog", scale=2)
    with pytest.raises(FrozenInstanceError):
        options.seed = 3  # type: ignore[misc]
    assert {options: 1}[UpscaleOptions(prompt="a dog", scale=2.0)] == 1


def test_metadata_hold_the_strengths_that_are_not_the_default() -> None:
    assert UpscaleOptions(seed=3, scale=2).notes() == {}
    assert UpscaleOptions(detail=1.5, restore=0).notes() == {"Detail": "1.5", "Restore": "0.0"}
    assert T2IOptions(mix_at=8).notes() == {}
    assert T2IOptions(style_prompt="a sketch").notes() == {"Style prompt": "a sketch", "Mix at": "16"}
    assert T2IOptions(truncation=0.5, to="a pear").notes() == {"Truncation": "0.5", "To": "a pear"}


def test_what_changes_a_result_changes_its_fingerprint_and_nothing_else_does(
    tiny_weights: Path, restoring_weights: Path
) -> None:
    plain = UpscaleOptions(model=str(tiny_weights))
    assert OTHER_VALUES.keys() | {"model"} == {each.name for each in fields(UpscaleOptions)}
    for name, value in OTHER_VALUES.items():
        is_same = fingerprint_parts(replace(plain, **{name: value})) == fingerprint_parts(plain)
        assert is_same == (name in WITHOUT_EFFECT or name == "prompt"), name  # which is a part of its own
    assert fingerprint_parts(UpscaleOptions(model=str(restoring_weights))) != fingerprint_parts(plain)
    assert fingerprint_parts(replace(plain, scale=8)) == fingerprint_parts(plain)


def test_a_command_has_an_option_for_every_field() -> None:
    upscale, t2i, train, evaluate = (
        {parameter.name for parameter in main.commands[name].params} for name in ("upscale", "t2i", "train", "eval")
    )
    assert upscale >= UpscaleOptions.rules().keys() - {"strip"}
    assert t2i >= T2IOptions.rules().keys() - {"prompt"}  # its argument PROMPTS
    assert train >= {each.name for each in fields(TrainOptions)}
    assert evaluate >= {each.name for each in fields(EvalOptions)} - {"upscale"} | set(STRENGTHS)
    assert inspect.signature(SuperResolver.upscale).parameters.keys() >= {"prompt", "scale", "size", "seed", *STRENGTHS}


def test_a_command_line_gives_every_field_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    command = main.commands["upscale"]
    monkeypatch.setattr(command, "callback", lambda **values: seen.append(values))
    arguments = ["upscale", "a.png"]
    for name, value in OTHER_VALUES.items():
        if name not in ("strip", "size"):
            arguments.append(f"--{name.replace('_', '-')}")
            arguments += [] if value is True else [str(value)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    wanted = OTHER_VALUES | {"strip": 0, "size": None}
    assert read_options(UpscaleOptions, seen[0]) == UpscaleOptions(**wanted)
    assert CliRunner().invoke(main, ["upscale", "a.png"]).exit_code == 0
    assert read_options(UpscaleOptions, seen[1]) == UpscaleOptions()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("upscale", ["a.png", "--detail", "2.5"]),
        ("upscale", ["a.png", "--restore", "-1"]),
        ("upscale", ["a.png", "--bit-depth", "12"]),
        ("upscale", ["a.png", "--seed", "-1"]),
        ("t2i", ["an apple", "--truncation", "2"]),
        ("t2i", ["an apple", "--frames", "1"]),
        ("train", ["upsampler_tiny", "--gpus", "0"]),
        ("eval", ["lanczos", "--data", ".", "--scale", "1"]),
        ("eval", ["lanczos", "--data", ".", "--restore", "2"]),
    ],
)
def test_a_value_beyond_the_limits_is_wrong_usage(command: str, arguments: list[str]) -> None:
    result = CliRunner().invoke(main, [command, *arguments])
    assert result.exit_code == 2 and f"Invalid value for '{arguments[-2]}'" in result.output.replace("-s' / '", "")
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "0"}, "size: expected a side in px"),
        ({"seed": 2**63 - 1, "count": 2}, r"seed: expected 0..2\*\*63 - 1, got 9223372036854775808"),
        ({"to": "a pear", "count": 2}, "to: expected one prompt to lead to, got a style prompt or several pictures"),
        ({"truncation": 1.1}, r"truncation: expected 0..1, got 1.1; 1 leaves the variety as it is"),
        ({"frames": 1}, "frames: expected at least 2, got 1; the prompts themselves are two"),
    ],
)
def test_text_to_image_is_told_nothing_that_contradicts_itself(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        T2IOptions(**values)


def test_every_option_of_the_commands_has_a_help_text() -> None:
    for kind in (UpscaleOptions, T2IOptions, EvalOptions, TrainOptions):
        assert all(rule.help.endswith((".", "]")) for rule in kind.rules().values())
    assert isinstance(main, click.Group)
