"""A run on Ray makes the same files as one without, whatever happens to its workers."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from picture_files import by_file, make_images, statuses

from gigasr.folders.job_runner import JobRunner, JobState
from gigasr.folders.local_runner import LocalRunner
from gigasr.folders.plan import Job, Outputs, find_images, plan_jobs
from gigasr.folders.ray_runner import ATTEMPTS, RayRunner, device_share, with_absolute_paths
from gigasr.folders.report import REPORT, read_reports
from gigasr.options import UpscaleOptions

psutil = pytest.importorskip("psutil")
pytest.importorskip("ray")


def plan(folder: Path, output: Path) -> list[Job]:
    return plan_jobs(find_images([folder]), Outputs(output))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != REPORT}


def kill_a_worker() -> None:
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # Ray's other processes come and go
            if child.name().startswith("ray::RemoteRunner"):
                return os.kill(child.pid, signal.SIGKILL)
    pytest.fail("found no worker to kill")


@pytest.mark.parametrize(("devices", "count", "share"), [(2, 2, 1), (4, 1, 1), (2, 3, 0.5), (1, 3, 0.3333)])
def test_workers_beyond_the_devices_share_them_so_that_none_spans_two(devices: int, count: int, share: float) -> None:
    assert device_share(devices, count) == share
    assert devices * int(1 / share) >= count


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_two_workers_of_which_one_is_killed_make_the_files_that_a_run_here_makes(
    tiny_weights: Path, tmp_path: Path
) -> None:
    make_images(tmp_path / "in", *(f"{number}.png" for number in range(10)))
    (tmp_path / "in" / "bad.png").write_bytes(b"no image")
    settings, results = UpscaleOptions(model=str(tiny_weights)), list[JobState]()
    LocalRunner(plan(tmp_path / "in", tmp_path / "here"), settings, lambda state: None).start()

    def notify(state: JobState) -> None:
        results.append(state)
        if len(results) == 2:
            kill_a_worker()

    RayRunner(plan(tmp_path / "in", tmp_path / "ray"), settings, notify, "local", 2).start()
    found = [("done", "failed")["bad" in state.job.target.name] for state in by_file(results)]
    reported_as = [
        status.replace("skipped", "done") for status in statuses(results)
    ]  # if written just before the worker died
    assert reported_as == found, [str(state.error) for state in results]
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")
    assert len(read_reports(tmp_path / "ray")) == 10


def test_a_worker_finds_its_files_from_any_folder(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(tmp_path / "in", "a.png")
    monkeypatch.chdir(tmp_path)
    (job,) = plan(Path("in"), Path("out"))
    sent = with_absolute_paths(job)
    monkeypatch.chdir(tiny_weights.parent)
    assert JobRunner(UpscaleOptions(model=str(tiny_weights))).process(sent, {}).status == "done"
    assert (tmp_path / job.target).is_file()
    assert sent.source.name == job.source.name
    assert sent.report == tmp_path / "out" / REPORT


def test_a_file_that_is_done_does_not_wait_for_the_one_at_work(tiny_weights: Path, tmp_path: Path) -> None:
    make_images(tmp_path / "in", "a.png")
    (job,) = plan(tmp_path / "in", tmp_path / "out")
    worker = JobRunner(UpscaleOptions(model=str(tiny_weights)))
    assert worker.process(job, {}).status == "done"
    with ThreadPoolExecutor(1) as pool, worker.lock:
        assert pool.submit(worker.process, job, {}).result(30).status == "skipped"


def test_a_file_whose_workers_die_is_given_up_and_told(tmp_path: Path, tiny_weights: Path) -> None:
    make_images(tmp_path, "a.png")
    results: list[JobState] = []
    (job,) = plan(tmp_path, tmp_path / "out")
    run = RayRunner([job], UpscaleOptions(model=str(tiny_weights)), results.append, "local", 1)
    for _ in range(ATTEMPTS):
        assert not results
        run.retry(job, RuntimeError("no\nmemory"))
    message = "its worker died 3 times (RuntimeError: no memory)"
    assert [(state.status, str(state.error)) for state in results] == [("failed", message)]
    assert list(run.waiting).count(job) == ATTEMPTS
