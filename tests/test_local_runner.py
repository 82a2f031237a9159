"""A run does what is missing, whatever goes wrong with a file, and goes on where another was stopped."""

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import by_file, make_images, png_bytes, random_samples, statuses
from PIL import Image

from gigasr.files.image_writer import write_frames
from gigasr.files.images import Frames, read_frames, read_image, read_metadata
from gigasr.folders.job_runner import JobState, fingerprint_parts
from gigasr.folders.local_runner import LocalRunner
from gigasr.folders.plan import Job, Outputs, find_images, plan_jobs
from gigasr.folders.report import REPORT, append_record
from gigasr.inference.devices import ExecutionPlan
from gigasr.inference.engine import BodyTailEngine
from gigasr.models.native import PromptedUpsampler
from gigasr.models.zoo import load_model
from gigasr.options import UpscaleOptions
from gigasr.pipeline import SuperResolver


def plan(*inputs: Path | str, recursive: bool = False, output: Path | None = None, **outputs: Any) -> list[Job]:
    return plan_jobs(find_images(inputs, recursive, output), Outputs(output, **outputs))


@pytest.fixture
def upscale(tiny_weights: Path) -> Callable[..., list[JobState]]:
    """Run over inputs, and give what was told of each file."""

    def run(*inputs: Path, output: Path | None = None, recursive: bool = False, **settings: Any) -> list[JobState]:
        results: list[JobState] = []
        jobs = plan(*inputs, output=output, recursive=recursive)
        LocalRunner(jobs, UpscaleOptions(model=str(tiny_weights), **settings), results.append).start()
        return by_file(results)

    return run


def test_an_output_folder_inside_the_input_folder_is_not_picked_up(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    make_images(tmp_path, "a.png", "sub/b.png", "out/foreign.png")
    first = upscale(tmp_path, output=tmp_path / "out", recursive=True)
    assert statuses(first) == ["done", "done"]
    again = upscale(tmp_path, output=tmp_path / "out", recursive=True)
    assert statuses(again) == ["skipped", "skipped"]
    third = plan(tmp_path, output=tmp_path / "other", recursive=True)
    assert sorted(job.source.name.as_posix() for job in third) == ["a.png", "out/foreign.png", "sub/b.png"]


def test_outputs_beside_their_inputs_are_not_picked_up(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    a, b = make_images(tmp_path, "a.png", "b.png")
    upscale(tmp_path)
    assert [job.source.path for job in plan(tmp_path)] == [a, b]
    assert [job.source.path for job in plan(tmp_path, label="4x")] == [a, b]
    (tmp_path / REPORT).unlink()
    assert [job.source.path for job in plan(tmp_path)] == [a, b]


def test_the_results_of_one_run_can_be_the_inputs_of_the_next(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    make_images(tmp_path, "in/a.png")
    upscale(tmp_path / "in", output=tmp_path / "large")
    assert [job.source.name.name for job in plan(tmp_path / "large", output=tmp_path / "larger")] == ["a_8x.png"]


def test_a_file_of_a_run_equals_the_pipeline_and_says_what_made_it(upscale, tiny_weights: Path, tmp_path: Path) -> None:  # noqa: ANN001
    (photo,) = make_images(tmp_path, "a.png")
    (state,) = upscale(tmp_path, output=tmp_path / "out", size="48x40", seed=3)
    expected = SuperResolver(load_model(str(tiny_weights))).upscale(read_image(photo), size=(40, 48), seed=3)
    assert state.size == (40, 48)
    assert (read_image(state.job.target).rgb - expected.rgb).abs().max() <= 0.5 / 255 + 1e-6
    texts = read_metadata(state.job.target)
    assert (texts["Prompt"], texts["Seed"], texts["Model"]) == ("", "3", "tiny.safetensors")


def test_a_rerun_makes_only_what_is_missing(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    make_images(tmp_path / "in", "a.png", "b.bmp", "c.png")
    first = upscale(tmp_path / "in", output=tmp_path / "out")
    first[1].job.target.unlink()
    before = first[0].job.target.stat().st_mtime_ns
    again = upscale(tmp_path / "in", output=tmp_path / "out")
    assert statuses(again) == ["skipped", "done", "skipped"]
    assert first[0].job.target.stat().st_mtime_ns == before
    assert statuses(upscale(tmp_path / "in", output=tmp_path / "out", overwrite=True)) == ["done"] * 3


def test_what_has_no_say_in_a_result_makes_no_file_anew(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    make_images(tmp_path / "in", "a.png")
    upscale(tmp_path / "in", output=tmp_path / "out")
    assert statuses(upscale(tmp_path / "in", output=tmp_path / "out", batch=2, device="cpu")) == ["skipped"]


def test_a_fingerprint_is_made_of_what_it_was_in_version_0_1(tiny_weights: Path) -> None:
    options = UpscaleOptions(model=str(tiny_weights), seed=3, tile=64, batch=2, device="cpu", overwrite=True)
    old = fingerprint_parts(options)
    assert json.dumps(old | {"model": ""}) == (
        '{"model": "", "scale": null, "size": null, "seed": 3, "fidelity": 1.0, "tile": 64, "aurasr": "gigasr", '
        '"precision": "auto", "quality": null, "bit_depth": null, "device": "", "overwrite": false}'
    )


def test_detail_has_its_place_in_a_fingerprint_and_later_options_stand_behind(tiny_weights: Path) -> None:
    chosen = UpscaleOptions(model=str(tiny_weights), detail=0.5, restore=0.25, prompt="a dog")
    names = list(fingerprint_parts(chosen))
    assert names[names.index("fidelity") + 1] == "detail" and names[-2:] == ["overwrite", "restore"]
    assert "prompt" not in names  # it stands beside them


def test_to_name_the_scale_of_the_model_changes_nothing(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    make_images(tmp_path / "in", "a.png")
    upscale(tmp_path / "in", output=tmp_path / "out")
    assert statuses(upscale(tmp_path / "in", output=tmp_path / "out", scale=8)) == ["skipped"]
    assert statuses(upscale(tmp_path / "in", output=tmp_path / "out", scale=4)) == ["kept"]


def test_a_moved_pair_of_folders_is_still_done(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    make_images(tmp_path / "x" / "in", "a.png")
    upscale(tmp_path / "x" / "in", output=tmp_path / "x" / "out")
    (tmp_path / "x").rename(tmp_path / "y")
    assert statuses(upscale(tmp_path / "y" / "in", output=tmp_path / "y" / "out")) == ["skipped"]


def test_an_output_that_no_record_explains_is_kept(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    changed, _, _ = make_images(tmp_path / "in", "a.png", "b.png", "c.png")
    out = tmp_path / "out"
    targets = [state.job.target for state in upscale(tmp_path / "in", output=out)]
    make_images(tmp_path, "other.png", "in/a.png")  # another input under the first name
    targets[1].write_bytes(b"mine")
    results = upscale(tmp_path / "in", output=out)
    assert statuses(results) == ["kept", "kept", "skipped"]
    assert "exists already" in str(results[1].error)
    assert targets[1].read_bytes() == b"mine"
    assert statuses(upscale(tmp_path / "in", output=out, seed=1)) == ["kept"] * 3


def test_the_report_has_a_line_per_file(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    (photo,) = make_images(tmp_path / "in", "sub/a.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no image")
    upscale(tmp_path / "in", output=tmp_path / "out", recursive=True)
    bad, good = map(json.loads, (tmp_path / "out" / REPORT).read_text().splitlines())
    assert (bad["status"], bad["output"]) == ("failed", "bad_8x.png")
    assert "expected an image" in bad["error"]
    assert (good["status"], good["error"], good["input"]) == ("done", "", str(photo))
    assert good["bytes"] == (tmp_path / "out" / good["output"]).stat().st_size
    assert good["seconds"] > 0


def test_a_line_cut_by_a_crash_costs_only_its_own_file(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    make_images(tmp_path / "in", "a.png", "b.png", "c.png")
    out = tmp_path / "out"
    upscale(tmp_path / "in", output=out)
    (out / "b_8x.png").unlink()
    lines = (out / REPORT).read_bytes().splitlines(keepends=True)
    (out / REPORT).write_bytes(b"[1]\n" + lines[2] + lines[0] + lines[1][:40])
    assert statuses(upscale(tmp_path / "in", output=out)) == ["skipped", "done", "skipped"]
    assert statuses(upscale(tmp_path / "in", output=out)) == ["skipped"] * 3


def test_a_single_file_leaves_no_report(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    (photo,) = make_images(tmp_path, "a.png")
    upscale(photo)
    assert sorted(os.listdir(tmp_path)) == ["a.png", "a_8x.png"]
    assert statuses(upscale(photo)) == ["skipped"]
    assert statuses(upscale(photo, seed=1)) == ["kept"]


def test_one_bad_file_does_not_stop_the_rest(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    make_images(tmp_path, "in/a.png", "in/z.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    (tmp_path / "out" / "z_8x.png").mkdir(parents=True)  # a folder where a file is to be
    results = upscale(tmp_path / "in", output=tmp_path / "out", overwrite=True)
    assert statuses(results) == ["done", "failed", "failed"]


def test_files_with_one_prompt_share_the_folded_network(tiny_weights: Path, tmp_path: Path, monkeypatch) -> None:  # noqa: ANN001
    folded: list[str] = []
    make = PromptedUpsampler.engine

    def counted(
        model: PromptedUpsampler, prompt: str, seed: int, execution: ExecutionPlan, scale: int
    ) -> BodyTailEngine:
        folded.append(prompt)
        return make(model, prompt, seed, execution, scale)

    monkeypatch.setattr(PromptedUpsampler, "engine", counted)
    jobs = plan(*make_images(tmp_path, "a.png", "b.png", "c.png"), output=tmp_path / "out")
    jobs = [replace(job, prompt=prompt) for job, prompt in zip(jobs, ("a dog", "a dog", "a cat"), strict=True)]
    LocalRunner(jobs, UpscaleOptions(model=str(tiny_weights)), lambda state: None).start()
    assert folded == ["a dog", "a cat"]
    assert [read_metadata(job.target)["Prompt"] for job in jobs] == ["a dog", "a dog", "a cat"]


class Stations:
    """Stands at the reader and the writer of a run, counts the pictures that are held and waits where told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held, self.max_held, self.waits = 0, 0, []
        self.events = {name: threading.Event() for name in ("b is read", "b is upscaled")}
        monkeypatch.setattr("gigasr.folders.job_runner.read_frames", self.read)
        monkeypatch.setattr("gigasr.folders.job_runner.write_frames", self.write)

    def read(self, path: Path) -> Frames:
        self.held += 1
        self.max_held = max(self.max_held, self.held)
        if path.stem == "b":
            self.events["b is read"].set()
        return read_frames(path)

    def write(self, path: Path, *rest: Any) -> None:
        if path.stem == "a_8x":
            self.waits.append(self.events["b is upscaled"].wait(20))
        write_frames(path, *rest)
        self.held -= 1

    def notify(self, state: JobState) -> None:
        if (state.status, state.job.source.path.stem) == ("running", "a"):
            self.waits.append(self.events["b is read"].wait(20))
        if (state.status, state.job.source.path.stem) == ("running", "b"):
            self.events["b is upscaled"].set()


def test_reading_and_writing_overlap_the_network_and_at_most_three_pictures_are_held(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stations = Stations(monkeypatch)
    names = [f"{letter}.png" for letter in "abcdef"]
    jobs = plan(*make_images(tmp_path, *names), output=tmp_path / "out")
    LocalRunner(jobs, UpscaleOptions(model=str(tiny_weights)), stations.notify).start()
    assert stations.waits == [True, True]
    assert stations.max_held <= 3
    assert len(list((tmp_path / "out").glob("*.png"))) == 6


def test_an_interrupt_drops_the_file_in_work_and_keeps_the_others(upscale, tiny_weights: Path, tmp_path: Path) -> None:  # noqa: ANN001
    make_images(tmp_path / "in", "a.png", "b.png", "c.png")

    def notify(state: JobState) -> None:
        if (state.status, state.job.source.path.name) == ("running", "b.png"):
            raise KeyboardInterrupt

    jobs = plan(tmp_path / "in", output=tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        LocalRunner(jobs, UpscaleOptions(model=str(tiny_weights)), notify).start()
    assert sorted(os.listdir(tmp_path / "out")) == ["a_8x.png", REPORT]
    assert statuses(upscale(tmp_path / "in", output=tmp_path / "out")) == ["skipped", "done", "done"]


def test_a_report_that_cannot_be_written_ends_the_run(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    make_images(tmp_path / "in", "a.png", "b.png", "c.png")
    (tmp_path / "out" / REPORT).mkdir(parents=True)
    with pytest.raises(OSError, match=REPORT):
        upscale(tmp_path / "in", output=tmp_path / "out")
    assert not (tmp_path / "out" / "a_8x.png").exists()


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """As if there were room for files of `limit` bytes only."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no limit of a file's size there")
def test_a_full_disk_costs_the_files_that_do_not_fit(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    make_images(tmp_path / "in", "a.png", "c.png")
    (tmp_path / "in" / "b.png").write_bytes(png_bytes(np.tile(random_samples(3, 8), (9, 9, 1))))
    with full_disk(100_000):
        results = upscale(tmp_path / "in", output=tmp_path / "out")
    assert statuses(results) == ["done", "failed", "done"]
    assert "File too large" in str(results[1].error)
    assert sorted(os.listdir(tmp_path / "out")) == ["a_8x.png", "c_8x.png", REPORT]


def test_a_line_that_does_not_fit_on_the_disk_is_told_and_the_rest_goes_on(
    upscale: Callable[..., list[JobState]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, record: dict[str, Any]) -> None:
        if record["output"] == "a_8x.png":
            raise OSError(28, "No space left on device", str(path))
        append_record(path, record)

    make_images(tmp_path / "in", "a.png", "b.png")
    monkeypatch.setattr("gigasr.folders.local_runner.append_record", full)
    results = upscale(tmp_path / "in", output=tmp_path / "out")
    assert statuses(results) == ["failed", "done"]
    assert "No space left" in str(results[0].error)
    assert statuses(upscale(tmp_path / "in", output=tmp_path / "out")) == ["failed", "skipped"]
    monkeypatch.undo()
    assert statuses(upscale(tmp_path / "in", output=tmp_path / "out")) == ["skipped", "skipped"]


def test_a_folder_that_cannot_be_made_costs_only_its_files(tiny_weights: Path, tmp_path: Path) -> None:
    make_images(tmp_path / "in", "a.png", "sub/b.png", "z.png")
    jobs, results = plan(tmp_path / "in", output=tmp_path / "out", recursive=True), list[JobState]()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_bytes(b"in the way")
    LocalRunner(jobs, UpscaleOptions(model=str(tiny_weights)), results.append).start()
    assert statuses(results) == ["done", "failed", "done"]
    assert "out/sub" in str(by_file(results)[1].error)
    assert sorted(os.listdir(tmp_path / "out")) == ["a_8x.png", REPORT, "sub", "z_8x.png"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no permissions of this kind there")
def test_a_folder_that_becomes_read_only_costs_only_its_files(tiny_weights: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, results = Path(name), list[JobState]()
        make_images(folder / "in", "a.png", "closed/b.png", "z.png")
        jobs = plan(folder / "in", output=folder / "out", recursive=True)
        run = LocalRunner(jobs, UpscaleOptions(model=str(tiny_weights)), results.append)
        run.runner.load()
        (folder / "out" / "closed").mkdir()
        for path, mode in {"": 0o755, "out": 0o777, f"out/{REPORT}": 0o666, "out/closed": 0o555}.items():
            (folder / path).chmod(mode)
        user = os.geteuid()
        os.seteuid(user or 65_534)  # nothing is read-only for root
        try:
            run.start()
        finally:
            os.seteuid(user)
        assert statuses(results) == ["done", "failed", "done"]
        assert "Permission denied" in str(by_file(results)[1].error)
        assert not os.listdir(folder / "out" / "closed")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no limit of a file's size there")
def test_a_temporary_file_that_does_not_fit_costs_only_its_picture(
    upscale: Callable[..., list[JobState]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gigasr.pipeline.MAX_ROW_WIDTH", 100)
    make_images(tmp_path / "in", "a.png", "c.png")
    Image.new("RGB", (200, 9)).save(tmp_path / "in" / "b.png")  # black: 345,600 bytes that shrink to a few
    with full_disk(100_000):
        results = upscale(tmp_path / "in", output=tmp_path / "out")
    assert statuses(results) == ["done", "failed", "done"]
    assert "File too large" in str(results[1].error)


def test_a_file_that_vanishes_is_told_and_the_rest_goes_on(upscale, tiny_weights: Path, tmp_path: Path) -> None:  # noqa: ANN001
    _, gone, _ = make_images(tmp_path / "in", "a.png", "b.png", "c.png")
    jobs, results = plan(tmp_path / "in", output=tmp_path / "out"), list[JobState]()
    gone.unlink()
    LocalRunner(jobs, UpscaleOptions(model=str(tiny_weights)), results.append).start()
    assert statuses(results) == ["done", "failed", "done"]
    assert any("No such file" in str(state.error) for state in results)


@pytest.mark.skipif(os.name == "nt", reason="names are not bytes there")
def test_names_in_any_script_and_in_none_are_kept(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    names = ["絵 – Ñandú.png", "שלום.png", "a\nb.png", "e\u0301.png", "🙂.png", os.fsdecode(b"\xff\xfe.png")]
    make_images(tmp_path / "in", *names)
    results = upscale(tmp_path / "in", output=tmp_path / "out")
    assert statuses(results) == ["done"] * len(names)
    assert {state.job.target.name for state in results} == {name.replace(".png", "_8x.png") for name in names}
    assert statuses(upscale(tmp_path / "in", output=tmp_path / "out")) == ["skipped"] * len(names)


def test_a_result_too_large_for_its_format_fails_before_the_network_runs(tiny_weights: Path, tmp_path: Path) -> None:
    Image.new("RGB", (2048, 1)).save(tmp_path / "a.png")
    results: list[JobState] = []
    LocalRunner(plan(tmp_path, suffix=".webp"), UpscaleOptions(model=str(tiny_weights)), results.append).start()
    assert statuses(results) == ["failed"]
    assert results[0].fraction == 0
    assert "expected at most 16383 px a side in WEBP, got 16384x8 px" in str(results[0].error)
