"""Every file gets the prompt that the list, its sidecar or the command gives it."""

import json
import unicodedata
from pathlib import Path

import pytest

from gigasr.folders.prompts import assign_prompts, check_prompts


def files(folder: Path, *names: str) -> dict[Path, Path]:
    return {folder / name: Path(name) for name in names}


def write(path: Path, text: str, encoding: str = "utf-8") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)
    return str(path)


def test_without_a_list_every_file_has_the_prompt_of_the_command(tmp_path: Path) -> None:
    inputs = files(tmp_path, "a.png", "b.png")
    assert list(assign_prompts(inputs, None, "a dog").values()) == ["a dog", "a dog"]


def test_a_csv_names_files_below_the_input_folder_and_the_rest_have_the_prompt_of_the_command(tmp_path: Path) -> None:
    rows = 'file,prompt\na.png,"a dog, a cat"\nsub/a.png,ein Hügel\n'
    origin = write(tmp_path / "lists" / "prompts.csv", rows, encoding="utf-8-sig")
    inputs = files(tmp_path / "in", "a.png", "sub/a.png", "b.png")
    assert list(assign_prompts(inputs, origin, "other").values()) == ["a dog, a cat", "ein Hügel", "other"]


def test_a_list_may_name_files_as_seen_from_its_own_folder(tmp_path: Path) -> None:
    origin = write(tmp_path / "prompts.csv", f"file,prompt\nin/a.png,one\n{tmp_path / 'in' / 'b.png'},two\n")
    assert list(assign_prompts(files(tmp_path / "in", "a.png", "b.png"), origin, "").values()) == ["one", "two"]


def test_a_jsonl_holds_a_prompt_or_captions_of_which_the_first_counts(tmp_path: Path) -> None:
    rows = [{"file": "a.png", "prompt": "one"}, {"file": "b.png", "captions": ["two", "three"], "split": "val"}]
    origin = write(tmp_path / "captions.jsonl", "\n\n".join(map(json.dumps, rows)) + "\n")
    assert list(assign_prompts(files(tmp_path, "a.png", "b.png"), origin, "").values()) == ["one", "two"]


def test_a_sidecar_lies_beside_its_image(tmp_path: Path) -> None:
    write(tmp_path / "sub" / "a.txt", "a red door\n")
    inputs = files(tmp_path, "sub/a.png", "b.png")
    assert list(assign_prompts(inputs, "sidecar", "other").values()) == ["a red door", "other"]


def test_no_sidecar_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a .txt file beside at least one input"):
        assign_prompts(files(tmp_path, "a.png"), "sidecar", "")


def test_a_name_that_is_no_input_is_an_error_that_tells_the_nearest(tmp_path: Path) -> None:
    origin = write(tmp_path / "prompts.csv", "file,prompt\nhose.png,a house\n")
    with pytest.raises(ValueError, match="expected names of inputs, got 'hose.png'; nearest input: house.png"):
        assign_prompts(files(tmp_path, "house.png", "b.png"), origin, "")


def test_two_prompts_for_one_file_are_an_error(tmp_path: Path) -> None:
    origin = write(tmp_path / "prompts.csv", "file,prompt\na.png,one\na.png,two\n")
    with pytest.raises(ValueError, match="got two for 'a.png'"):
        assign_prompts(files(tmp_path, "a.png"), origin, "")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "name,text\na.png,x\n", "expected the columns file and prompt, got .'name', 'text'."),
        ("p.csv", "", "expected the columns file and prompt, got None"),
        ("p.csv", "file,prompt\na.png,one, two\n", "in line 2; quote a prompt with commas"),
        ("p.csv", "file,prompt\na.png\n", "expected a file and a prompt in line 2"),
        ("p.csv", 'file,prompt\na.png,"one\n', "expected a table"),
        ("p.jsonl", '{"file": "a.png"}\n', "in line 1, got '{.file.: .a.png.}'; correct it"),
        ("p.jsonl", '{"file": "a.png", "prompt": 3}\n', "in line 1, got '{.file.: .a.png., .prompt.: 3}'"),
        ("p.jsonl", '{"file": "a.png", "captions": "a dog"}\n', "file and a list of captions, in line 1"),
        ("p.jsonl", '{"file": "a.png", "captions": null}\n', "file and a list of captions, in line 1"),
        ("p.jsonl", '{"file": "a.png", "captions": {}}\n', "file and a list of captions, in line 1"),
        ("p.jsonl", '{"file": "a.png", "prompt": ""}\nfile\n', "in line 2, got 'file'"),
        ("p.txt", "a dog", "expected a name that ends in .csv or .jsonl, or the word sidecar"),
    ],
)
def test_a_list_that_is_none_is_one_clear_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        assign_prompts(files(tmp_path, "a.png"), write(tmp_path / name, text), "")
    assert name in str(caught.value)


def test_a_list_that_is_no_text_is_one_clear_line(tmp_path: Path) -> None:
    origin = write(tmp_path / "p.csv", "file,prompt\na.png,Hügel\n", encoding="latin-1")
    with pytest.raises(ValueError, match="expected text in UTF-8"):
        assign_prompts(files(tmp_path, "a.png"), origin, "")


def test_the_longest_of_all_prompts_decides(tmp_path: Path) -> None:
    check_prompts(["", "word " * 75])
    with pytest.raises(ValueError, match="prompt: expected at most 75 tokens, got 76; shorten 'word"):
        check_prompts(["", "a dog", "word " * 76])


def test_the_file_of_a_prompt_that_is_too_long_is_named(tmp_path: Path) -> None:
    inputs = files(tmp_path, "a.png", "b.png")
    write(tmp_path / "b.txt", "word " * 76)
    with pytest.raises(ValueError, match=r"b.png: prompt: expected at most 75 tokens, got 76"):
        assign_prompts(inputs, "sidecar", "")


def test_an_accent_may_be_a_character_of_its_own(tmp_path: Path) -> None:
    inputs = files(tmp_path, unicodedata.normalize("NFD", "café.png"))
    origin = write(tmp_path / "p.csv", f"file,prompt\n{unicodedata.normalize('NFC', 'café.png')},a cup\n")
    assert [*assign_prompts(inputs, str(origin), "").values()] == ["a cup"]
