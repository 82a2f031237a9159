"""Run over many files with Ray: on a cluster, or in several processes here."""

import logging
import math
import os
import signal
import threading
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from gigasr.errors import join_lines
from gigasr.folders.job_runner import JobRunner, JobState
from gigasr.folders.local_runner import NotifyJob, ReportStore
from gigasr.folders.plan import Job
from gigasr.models.zoo import find_model
from gigasr.options import UpscaleOptions

logger = logging.getLogger(__name__)

LOCAL = "local"  # address of a cluster on this machine, started for the run
ATTEMPTS = 3  # per file, if workers die
_CORES_PER_WORKER = 4
_FILES_PER_WORKER = 2  # one is read while another is upscaled


class RemoteRunner:
    """Worker in a separate process."""

    def __init__(self, options: UpscaleOptions, num_threads: int) -> None:
        """Load the model.

        num_threads: of the CPU; 0 = torch's default
        """
        import torch

        if num_threads:
            torch.set_num_threads(num_threads)
        self.runner = JobRunner(options)
        self.runner.load()

    def is_ready(self) -> bool:
        """Return True; Ray runs the call after the model is loaded."""
        return True

    def process(self, job: Job, known: dict[str, Any]) -> JobState:
        """Read, upscale and write a file."""
        state = self.runner.process(job, known)
        if state.error is None:
            return state
        sendable = ValueError(str(state.error))  # not every error can be pickled
        return replace(state, error=sendable)


class _WorkerHandle:
    """Local state of one remote worker."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.jobs: dict[Any, Job] = {}  # submitted, by the reference to the result
        self.starting: Any = actor.is_ready.remote()  # None once the worker is ready

    def has_room(self, is_retried: bool, retried_jobs: set[Job]) -> bool:
        """Tell whether the worker takes another file.

        A retried file is processed alone: the death of the worker may be the file's fault.

        is_retried:   of the next file
        retried_jobs: files in work when a worker died
        """
        if self.starting is not None:
            return False
        has_retried = any(job in retried_jobs for job in self.jobs.values())
        limit = 1 if is_retried or has_retried else _FILES_PER_WORKER
        return len(self.jobs) < limit


def device_share(devices: int, count: int) -> float:
    """Return each worker's share of a device: the largest with room for all workers.

    A worker never spans two devices. The share is rounded down to Ray's unit of 1/10,000.
    """
    workers_per_device = math.ceil(count / max(devices, 1))
    return math.floor(10_000 / workers_per_device) / 10_000


class RayRunner:
    """Run over files with Ray; if a worker dies, another worker repeats the file."""

    def __init__(
        self, jobs: list[Job], options: UpscaleOptions, notify: NotifyJob, address: str, workers: int | None
    ) -> None:
        """Check the model and the reports.

        address: "local"; "auto" for the cluster of this machine; or a cluster's address
        workers: number of processes; None = one per GPU, or without GPUs one per four CPU cores
        """
        self.jobs = jobs
        self.options = options
        self.notify = notify
        self.address = address
        self.workers = workers
        find_model(options.model)  # raises for an unknown model
        self.reports = ReportStore(jobs)
        self.waiting = deque(self.jobs)
        self.attempts: dict[Job, int] = {}  # failed ones, by file

    def start(self) -> None:
        """Process all files; the workers must see the files under the same paths."""
        ray = _import_ray()
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        handler = signal.getsignal(signal.SIGTERM)
        if self.address == LOCAL:
            cores = max(os.cpu_count() or 1, self.workers or 1)
            ray.init(include_dashboard=False, num_cpus=cores, **quiet)
        else:
            ray.init(self.address, **quiet)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's handler would end the process at once
        try:
            handles = self.start_workers(ray)
            while self.waiting or any(handle.jobs for handle in handles):
                self.assign(handles)
                self.collect(ray, handles)
        finally:
            ray.shutdown()
            self.reports.remove_leftovers()

    def start_workers(self, ray: Any) -> list[_WorkerHandle]:
        """Start the workers; RuntimeError if a worker cannot load the model."""
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = int(sum(node.get("GPU", 0) for node in alive))
        cores_by_node = [int(node.get("CPU", 0)) for node in alive]
        cores = int(sum(node.get("CPU", 0) for node in alive))
        if gpus:
            count = self.workers or gpus
            share = {"num_gpus": device_share(gpus, count)}
            num_threads = 0
        else:
            count = self.workers or sum(max(num // _CORES_PER_WORKER, 1) for num in cores_by_node)
            share = {"num_cpus": device_share(cores, count)}
            num_threads = max(cores // count, 1)
        decorate = ray.remote(max_restarts=-1, max_concurrency=_FILES_PER_WORKER, scheduling_strategy="SPREAD", **share)
        actor = decorate(RemoteRunner)
        model = Path(self.options.model)
        options = self.options
        if model.exists():
            options = replace(options, model=str(model.absolute()))
        handles = [_WorkerHandle(actor.remote(options, num_threads)) for _ in range(count)]
        try:
            ray.get([handle.starting for handle in handles])
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise RuntimeError(
                f"ray: expected workers that start, got {reason}; is gigasr on every machine?"
            ) from error
        return handles

    def assign(self, handles: list[_WorkerHandle]) -> None:
        """Submit waiting files to workers with room."""
        retried_jobs = set(self.attempts)
        for handle in handles:
            while self.waiting and handle.has_room(self.waiting[0] in retried_jobs, retried_jobs):
                job = self.waiting.popleft()
                known = self.reports.find(job)
                reference = handle.actor.process.remote(with_absolute_paths(job), known)
                handle.jobs[reference] = job

    def collect(self, ray: Any, handles: list[_WorkerHandle]) -> None:
        """Wait until a file is finished, a worker has died, or a worker is ready."""
        owners = {}
        for handle in handles:
            for reference in handle.jobs:
                owners[reference] = handle
            if handle.starting is not None:
                owners[handle.starting] = handle
        finished, _ = ray.wait(list(owners), num_returns=1)
        for reference in finished:
            handle = owners[reference]
            job = handle.jobs.pop(reference, None)
            try:
                result = ray.get(reference)
            except ray.exceptions.RayActorError as error:
                handle.starting = handle.actor.is_ready.options(max_task_retries=-1).remote()
                if job is not None:
                    self.retry(job, error)
                continue
            if job is None:
                handle.starting = None
            else:
                result = replace(result, job=job)
                self.reports.add(result)
                self.notify(result)

    def retry(self, job: Job, error: Exception) -> None:
        """Queue a file again, to be processed alone; after ATTEMPTS, record a failure."""
        count = self.attempts.get(job, 0) + 1
        self.attempts[job] = count
        if count < ATTEMPTS:
            logger.warning("%s: its worker died; once more", job.source.path)
            self.waiting.append(job)
            return
        reason = join_lines(f"{type(error).__name__}: {error}")[:300]
        state = JobState(job, "failed", error=RuntimeError(f"its worker died {ATTEMPTS} times ({reason})"))
        self.reports.add(state)
        self.notify(state)


def with_absolute_paths(job: Job) -> Job:
    """Make a job's paths absolute, for processes with another working folder."""
    source = replace(job.source, path=job.source.path.absolute(), root=job.source.root.absolute())
    report = None if job.report is None else job.report.absolute()
    return replace(job, source=source, target=job.target.absolute(), report=report)


def _import_ray() -> Any:
    """Import the package ray; an ImportError tells how to install the package."""
    try:
        import ray
    except ImportError as error:
        raise ImportError("ray: expected to be installed, got nothing; pip install 'gigasr[ray]'") from error
    return ray
