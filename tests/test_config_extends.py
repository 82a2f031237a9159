"""A config may extend another file: what it states wins, all else stays."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gigasr.cli.train import load_any_config
from gigasr.config.shipped import config_folder, config_names, find_config
from gigasr.config.tables import read_tables

BASE = """
[model]
size = 4
stages = [{ channels = 8, blocks = 1 }, { channels = 16, blocks = 2 }]
text = { tower = "a", depth = 2 }

[train]
seed = 1
"""
CHANGES = {  # of the ablation's rows, each against the row that it extends; numbers of list elements left out
    "02_larger": {"generator.levels.channels", "discriminator.stages.channels", "discriminator.out_channels"},
    "03_tuned": {
        "generator.z_dim",
        "generator.mapping_layers",
        "discriminator.minibatch_std",
        "train.ema_half_life",
        "train.weight_decay",
        "train.phases.generator_learning_rate",
        "train.phases.discriminator_learning_rate",
        "train.phases.loss.r1",
    },
    "04_attention": {
        "generator.levels.attention",
        "generator.text.depth",
        "discriminator.stages.attention",
        "discriminator.text.depth",
    },
    "05_matching_d": {"train.phases.loss.matching"},
    "06_matching_gd": {"train.phases.loss.generator_matching"},
    "07_adaptive_conv": {"generator.levels.num_kernels"},
    "08_deeper": {"generator.levels.blocks", "discriminator.stages.blocks"},
    "09_clip": {"train.phases.loss.clip"},
    "10_multiscale": {
        "discriminator.num_levels",
        "discriminator.head_weight",
        "discriminator.predictor_layers",
        "train.phases.loss.r1",
    },
    "11_vision": {"train.phases.loss.vision"},
    "12_scale_up": {
        "generator.w_dim",
        "generator.levels.channels",
        "generator.levels.blocks",
        "generator.levels.num_kernels",
        "generator.levels.attention",
        "generator.text.depth",
        "discriminator.stages.channels",
        "discriminator.stages.attention",
        "discriminator.out_channels",
        "discriminator.text.depth",
    },
}
EXTENDING = [name for name in config_names() if "extends" in tomllib.loads(find_config(name).read_text("utf-8"))]


def write(folder: Path, **texts: str) -> Path:
    """Write NAME.toml for each text and return the last one's path."""
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder / f"{name}.toml"


def leaves(table: dict[str, Any], key: str = "") -> Iterator[tuple[str, Any]]:
    """Give the dotted key and the value of everything that is no table."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{key}{name}.")
        else:
            yield f"{key}{name}", value


def numbered(value: Any) -> Any:
    """Turn every list of tables into a table with numbers for keys."""
    if isinstance(value, dict):
        return {name: numbered(below) for name, below in value.items()}
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        return {str(number): numbered(below) for number, below in enumerate(value)}
    return value


def settings(name: str) -> dict[str, Any]:
    """Return all values of a shipped config, defaults included, by their dotted keys."""
    return dict(leaves(numbered(load_any_config(find_config(name), ()).model_dump())))


def extended(name: str) -> str:
    """Return the name of the shipped config that another one extends."""
    path = find_config(name)
    target = path.parent / tomllib.loads(path.read_text("utf-8"))["extends"]
    return target.relative_to(config_folder()).with_suffix("").as_posix()


def test_what_a_file_states_wins_and_all_else_stays(tmp_path: Path) -> None:
    path = write(tmp_path, base=BASE, new='extends = "base.toml"\n[model]\nsize = 5\ntext.depth = 3')
    expected = tomllib.loads(BASE)
    expected["model"] |= {"size": 5, "text": {"tower": "a", "depth": 3}}
    assert read_tables(path) == expected


def test_a_list_replaces_the_list(tmp_path: Path) -> None:
    path = write(tmp_path, base=BASE, new='extends = "base.toml"\n[model]\nstages = [{ channels = 3 }]')
    assert read_tables(path)["model"]["stages"] == [{"channels": 3}]


def test_numbers_for_keys_change_elements_of_a_list(tmp_path: Path) -> None:
    path = write(tmp_path, base=BASE, new='extends = "base.toml"\n[model.stages]\n1.channels = 3')
    assert read_tables(path)["model"]["stages"] == [{"channels": 8, "blocks": 1}, {"channels": 3, "blocks": 2}]


def test_a_chain_of_files_merges_from_the_far_end(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    write(tmp_path / "far", base=BASE, middle='extends = "base.toml"\n[model]\nsize = 5\n[train]\nseed = 2')
    tables = read_tables(write(tmp_path, new='extends = "far/middle.toml"\n[model]\nsize = 6'))
    assert (tables["model"]["size"], tables["train"]["seed"]) == (6, 2)


def test_overrides_come_last(tmp_path: Path) -> None:
    path = write(tmp_path, base=BASE, new='extends = "base.toml"\n[train]\nseed = 2')
    assert read_tables(path, ("train.seed=3", "model.stages.0.blocks=4"))["train"] == {"seed": 3}


def test_a_file_anywhere_extends_a_shipped_config_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, mine='extends = "upsampler_tiny"\n[train]\nseed = 9')
    mine, tiny = (load_any_config(path, ()) for path in (path, find_config("upsampler_tiny")))
    assert mine.train.seed == 9
    assert (mine.upsampler, mine.discriminator, mine.train.phases) == (
        tiny.upsampler,
        tiny.discriminator,
        tiny.train.phases,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('extends = "absent.toml"', r"a\.toml: extends: expected a TOML file or one of .*, got 'absent\.toml'; check"),
        ("extends = 3", r"a\.toml: extends: expected the path of a TOML file, got 3; write it as a string"),
        ('extends = "a.toml"', r"a\.toml: extends: expected files that end, got the circle \S*a\.toml -> \S*a\.toml; "),
        ('extends = "b.toml"', r"a\.toml: extends: .* circle \S*a\.toml -> \S*b\.toml -> \S*a\.toml; remove"),
        ('extends = "broken.toml"', r"broken\.toml: expected TOML"),
        (
            'extends = "base.toml"\n[model.stages]\n2.blocks = 1',
            r"a\.toml: model\.stages: expected the number of a list's element, got '2'",
        ),
        (
            'extends = "base.toml"\n[model.stages]\nlast.blocks = 1',
            r"a\.toml: model\.stages: expected the number of a list's element, got 'last'",
        ),
    ],
)
def test_what_cannot_be_merged_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, base=BASE, b='extends = "a.toml"', broken="a = ", a=text)
    with pytest.raises(ValueError, match=message) as error:
        read_tables(path)
    assert "\n" not in str(error.value)


def test_rows_two_to_twelve_of_the_ablation_extend_a_row_before() -> None:
    assert [name for name in EXTENDING if name.startswith("ablation/")] == [f"ablation/{name}" for name in CHANGES]
    assert all(extended(name) < name for name in EXTENDING if name.startswith("ablation/"))


@pytest.mark.parametrize("row", CHANGES)
def test_a_row_of_the_ablation_makes_its_one_change(row: str) -> None:
    before, after = settings(extended(f"ablation/{row}")), settings(f"ablation/{row}")
    assert before.keys() == after.keys()
    changed = {key for key in before if before[key] != after[key]}
    assert {".".join(part for part in key.split(".") if not part.isdecimal()) for key in changed} == CHANGES[row]


@pytest.mark.parametrize("name", EXTENDING)
def test_a_config_that_extends_another_repeats_no_value_of_it(name: str) -> None:
    stated = dict(leaves(tomllib.loads(find_config(name).read_text("utf-8"))))
    base = settings(extended(name))
    assert not {key for key, value in stated.items() if base.get(key) == value}


def test_the_large_upsampler_differs_from_the_small_one_in_its_sizes() -> None:
    small, large = (load_any_config(find_config(name), ()) for name in ("upsampler_64_512", "upsampler_128_1024"))
    lists = {"lr_size", "levels"}
    assert small.upsampler.model_dump(exclude=lists) == large.upsampler.model_dump(exclude=lists)
    assert (large.upsampler.lr_size, large.train.data.max_downscale, large.train.phases[0].crop) == (128, 1.0, 1024)
    assert large.train.phases[0].model_copy(update={"crop": 512}) == small.train.phases[0]
