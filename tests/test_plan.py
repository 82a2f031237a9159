"""The right files are found, each has one output, and every file is somebody's."""

from pathlib import Path
from typing import Any

import pytest
from picture_files import make_images
from PIL import Image

from gigasr.folders.plan import Job, Outputs, find_images, is_in_shard, plan_jobs
from gigasr.folders.report import REPORT, append_record, name_from


def plan(*inputs: Path | str, recursive: bool = False, output: Path | None = None, **outputs: Any) -> list[Job]:
    return plan_jobs(find_images(inputs, recursive, output), Outputs(output, **outputs))


def found(*inputs: Path | str, recursive: bool = False) -> list[Path]:
    return [source.path for source in find_images(inputs, recursive)]


def test_a_folder_stands_for_its_images_in_order(tmp_path: Path) -> None:
    b, a = make_images(tmp_path, "b.png", "a.jpg")
    (tmp_path / "notes.txt").write_text("no image")
    assert [source.path for source in find_images((tmp_path, b))] == [a, b, b]


def test_folders_in_a_folder_count_only_when_asked_for(tmp_path: Path) -> None:
    paths = make_images(tmp_path, "a.png", "sub/b.png", "sub/deep/c.png")
    assert found(tmp_path) == paths[:1]
    assert found(tmp_path, recursive=True) == paths


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    a, *_ = make_images(tmp_path, "a.png", "._a.png", ".thumbnails/b.png")
    assert found(tmp_path, recursive=True) == [a]


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (a,) = make_images(tmp_path, "sub/a.png")
    try:
        (tmp_path / "sub" / "up").symlink_to(tmp_path, target_is_directory=True)
        (tmp_path / "self.png").symlink_to("self.png")
    except OSError:
        pytest.skip("links are not allowed here")
    assert found(tmp_path, recursive=True) == [a]


def test_a_pattern_stands_for_the_images_it_matches(tmp_path: Path) -> None:
    a, b, _ = make_images(tmp_path, "in/a.png", "in/sub/b.png", "in/c.jpg")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    assert found(str(tmp_path / "in" / "*.png")) == [a]
    assert found(str(tmp_path / "in" / "**" / "*.png")) == [a, b]
    assert [job.target for job in plan(tmp_path / "in" / "*" / "*.png", output=tmp_path / "o")] == [
        tmp_path / "o" / "sub" / "b_8x.png"
    ]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        found(str(tmp_path / "*.webp"))


def test_a_pattern_leaves_out_the_output_folder_that_lies_in_its_own(tmp_path: Path) -> None:
    a, _ = make_images(tmp_path, "in/a.png", "in/large/b_8x.png")
    for pattern in ("*", "**/*.png"):
        jobs = plan(str(tmp_path / "in" / pattern), output=tmp_path / "in" / "large")
        assert [job.source.path for job in jobs] == [a]
    assert [job.source.path for job in plan(str(tmp_path / "in" / "a.*"), output=tmp_path)] == [a]


def test_a_folder_that_was_moved_still_knows_its_results(tmp_path: Path) -> None:
    a, b = make_images(tmp_path / "here", "a.png", "a_8x.png")
    append_record(tmp_path / "here" / REPORT, {"input": name_from(a.parent, a), "output": b.name, "status": "done"})
    (tmp_path / "here").rename(tmp_path / "there")
    assert [job.source.name.name for job in plan(tmp_path / "there", label="4x")] == ["a.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    literal, _ = make_images(tmp_path, "a[1].png", "a1.png")
    assert found(str(literal)) == [literal]


def test_outputs_lie_beside_their_inputs_under_a_name_that_says_the_factor(tmp_path: Path) -> None:
    (photo,) = make_images(tmp_path, "photo.jpg")
    assert [job.target for job in plan(photo)] == [tmp_path / "photo_8x.png"]


def test_the_tree_is_kept_in_the_output_folder(tmp_path: Path) -> None:
    make_images(tmp_path, "in/a.png", "in/sub/a.png")
    jobs = plan(tmp_path / "in", output=tmp_path / "out", recursive=True)
    assert [job.target.relative_to(tmp_path).as_posix() for job in jobs] == ["out/a_8x.png", "out/sub/a_8x.png"]


def test_two_inputs_for_one_output_are_an_error_and_one_input_named_twice_is_not(tmp_path: Path) -> None:
    a, b = make_images(tmp_path, "a.png", "a.jpg")
    with pytest.raises(ValueError, match="expected one output per input, got .*a.png and .*a.jpg"):
        plan(a, b)
    assert len(plan(a, tmp_path / "." / "a.png")) == 1


def test_several_inputs_do_not_go_into_one_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a folder for several inputs"):
        plan(*make_images(tmp_path, "a.png", "b.png"), output=tmp_path / "out.png")


def test_a_version_in_a_name_makes_it_no_file(tmp_path: Path) -> None:
    (a,) = make_images(tmp_path, "a.png")
    assert plan(a, output=tmp_path / "out-v1.0")[0].target == tmp_path / "out-v1.0" / "a_8x.png"


def test_a_format_and_the_name_of_the_file_may_not_contradict_each_other(tmp_path: Path) -> None:
    (a,) = make_images(tmp_path, "a.png")
    with pytest.raises(ValueError, match=r"b\.jpg: expected a name that ends in \.png, as --format says"):
        plan(a, output=tmp_path / "b.jpg", suffix=".png")
    assert plan(a, output=tmp_path / "b.PNG", suffix=".png")[0].target.name == "b.PNG"
    assert plan(a, output=tmp_path / "b.jpeg", suffix=".jpg")[0].target.name == "b.jpeg"


def test_a_file_of_several_pictures_keeps_its_kind_and_all_others_become_png(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "b.webp", "c.tif", "d.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    for name in ("e.gif", "f.webp", "g.tif"):
        frames[0].save(tmp_path / name)
    (tmp_path / "h.gif").write_bytes(b"no image")
    names = [job.target.name for job in plan(tmp_path, label="x")]
    assert names == ["a_x.gif", "b_x.webp", "c_x.tif", *(f"{letter}_x.png" for letter in "defgh")]
    assert {job.target.suffix for job in plan(tmp_path, suffix=".webp")} == {".webp"}


def test_the_shards_of_a_folder_are_its_parts_and_stay_so_when_files_come_and_go(tmp_path: Path) -> None:
    make_images(tmp_path, *(f"{number}.bmp" for number in range(20)))

    def part(number: int) -> set[Path]:
        return {source.path for source in find_images((tmp_path,)) if is_in_shard(source, (number, 3))}

    shards = [part(number) for number in (1, 2, 3)]
    assert all(shards)
    assert sorted(path for shard in shards for path in shard) == found(tmp_path)
    make_images(tmp_path, "0a.bmp")
    (tmp_path / "19.bmp").unlink()
    again = [part(number) for number in (1, 2, 3)]
    assert all(new ^ old <= {tmp_path / "0a.bmp", tmp_path / "19.bmp"} for new, old in zip(again, shards, strict=True))
    assert {job.report for job in plan(tmp_path, shard=(2, 3))} == {tmp_path / "gigasr-report-2-of-3.jsonl"}


def test_an_output_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    make_images(tmp_path, "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="expected a writable folder, got .*file; choose another -o"):
        plan(tmp_path, output=tmp_path / "file" / "out")


def test_sixteen_bit_needs_a_format_that_has_it(tmp_path: Path) -> None:
    make_images(tmp_path, "a.png")
    assert len(plan(tmp_path, bit_depth=16, suffix=".tif")) == 1
    with pytest.raises(ValueError, match="a_8x.jpg: expected .png, .tif or .tiff for 16 bit, got .jpg"):
        plan(tmp_path, bit_depth=16, suffix=".jpg")
