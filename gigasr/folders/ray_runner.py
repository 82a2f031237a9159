"""A run over many files on the machines of a Ray cluster, or in several processes on this one."""

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
from gigasr.folders.job_runner import JobRunner, JobState, Settings
from gigasr.folders.local_runner import NotifyJob, ReportStore
from gigasr.folders.plan import Job
from gigasr.models.zoo import find_model

logger = logging.getLogger(__name__)

LOCAL = "local"  # address of a cluster that is started for the run, on this machine
CORES_PER_WORKER = 4
ATTEMPTS = 3  # at a file whose worker dies
AT_A_TIME = 2  # files per worker: one is read while another is upscaled


class RemoteRunner:
    """A worker in a process of its own."""

    def __init__(self, settings: Settings, num_threads: int) -> None:
        """Load the model. num_threads: of the CPU; 0 = as torch wants"""
        import torch

        if num_threads:
            torch.set_num_threads(num_threads)
        self.runner = JobRunner(settings)
        self.runner.load()

    def is_ready(self) -> bool:
        """True, once the model is loaded."""
        return True

    def process(self, job: Job, known: dict[str, Any]) -> JobState:
        """Take a file from start to end."""
        state = self.runner.process(job, known)
        return replace(state, error=state.error and ValueError(str(state.error)))  # not every error can be sent


class WorkerHandle:
    """One worker of the run, as the run sees it."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.jobs: dict[Any, Job] = {}  # in work, by the reference to their result
        self.starting: Any = actor.is_ready.remote()  # None once the worker is there

    def has_room(self, is_retried: bool, retried_jobs: set[Job]) -> bool:
        """A file by which a worker has died is worked on alone."""
        if self.starting is not None:
            return False
        alone = is_retried or any(job in retried_jobs for job in self.jobs.values())
        return len(self.jobs) < (1 if alone else AT_A_TIME)


def device_share(devices: int, count: int) -> float:
    """What each of several workers takes of a device: all, or such a part that all have room and none needs two."""
    return math.floor(10_000 / math.ceil(count / max(devices, 1))) / 10_000  # down, as Ray counts in these parts


class RayRunner:
    """A run over files on Ray: a file whose worker dies goes to another, and the rest goes on."""

    def __init__(
        self, jobs: list[Job], settings: Settings, notify: NotifyJob, address: str, workers: int | None
    ) -> None:
        """
        address: "local"; "auto", the cluster this machine is in; or a cluster's address
        workers: processes; None = one per GPU, or without GPUs one per four CPU cores
        """
        self.jobs, self.settings, self.notify, self.address, self.workers = jobs, settings, notify, address, workers
        find_model(settings.model)
        self.reports = ReportStore(jobs)
        self.waiting = deque(self.jobs)
        self.attempts: dict[Job, int] = {}  # at files whose worker died

    def start(self) -> None:
        """Go through the files; the workers must see them under the same names."""
        ray = import_ray()
        options = {"log_to_driver": False, "logging_level": logging.ERROR}
        handler = signal.getsignal(signal.SIGTERM)
        if self.address == LOCAL:
            cores = max(os.cpu_count() or 1, self.workers or 1)
            ray.init(include_dashboard=False, num_cpus=cores, **options)
        else:
            ray.init(self.address, **options)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's would end the process at once
        try:
            handles = self.start_workers(ray)
            while self.waiting or any(handle.jobs for handle in handles):
                self.assign(handles)
                self.collect(ray, handles)
        finally:
            ray.shutdown()
            self.reports.remove_leftovers()

    def start_workers(self, ray: Any) -> list[WorkerHandle]:
        """Start the workers; what goes wrong with the first model they load ends the run."""
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus, cores = (int(sum(node.get(name, 0) for node in alive)) for name in ("GPU", "CPU"))
        slots = gpus or sum(max(int(node.get("CPU", 0)) // CORES_PER_WORKER, 1) for node in alive)
        count = self.workers or slots
        share = {"num_gpus": device_share(gpus, count)} if gpus else {"num_cpus": device_share(cores, count)}
        actor = ray.remote(max_restarts=-1, max_concurrency=AT_A_TIME, scheduling_strategy="SPREAD", **share)(
            RemoteRunner
        )
        num_threads = 0 if gpus else max(cores // count, 1)
        model = Path(self.settings.model)
        settings = replace(self.settings, model=str(model.absolute())) if model.exists() else self.settings
        handles = [WorkerHandle(actor.remote(settings, num_threads)) for _ in range(count)]
        try:
            ray.get([handle.starting for handle in handles])
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise RuntimeError(
                f"ray: expected workers that start, got {reason}; is gigasr on every machine?"
            ) from error
        return handles

    def assign(self, handles: list[WorkerHandle]) -> None:
        """Give work to the workers that have room."""
        retried_jobs = set(self.attempts)
        for handle in handles:
            while self.waiting and handle.has_room(self.waiting[0] in retried_jobs, retried_jobs):
                job = self.waiting.popleft()
                handle.jobs[handle.actor.process.remote(with_absolute_paths(job), self.reports.find(job))] = job

    def collect(self, ray: Any, handles: list[WorkerHandle]) -> None:
        """Wait until a file is finished, a worker has died or is there again."""
        owners = {
            reference: handle
            for handle in handles
            for reference in [*handle.jobs, handle.starting]
            if reference is not None
        }
        for reference in ray.wait(list(owners), num_returns=1)[0]:
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
        """Have a file done again, alone on its worker, or give it up."""
        self.attempts[job] = self.attempts.get(job, 0) + 1
        if self.attempts[job] < ATTEMPTS:
            logger.warning("%s: its worker died; once more", job.source.path)
            self.waiting.append(job)
            return
        reason = join_lines(f"{type(error).__name__}: {error}")[:300]
        state = JobState(job, "failed", error=RuntimeError(f"its worker died {ATTEMPTS} times ({reason})"))
        self.reports.add(state)
        self.notify(state)


def with_absolute_paths(job: Job) -> Job:
    """A job that means the same in the folder that another process works in."""
    source = replace(job.source, path=job.source.path.absolute(), root=job.source.root.absolute())
    return replace(job, source=source, target=job.target.absolute(), report=job.report and job.report.absolute())


def import_ray() -> Any:
    """The package ray, or ImportError that says how to get it."""
    try:
        import ray
    except ImportError as error:
        raise ImportError("ray: expected to be installed, got nothing; pip install 'gigasr[ray]'") from error
    return ray
