"""A run over many files on this machine."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from gigasr.files.atomic import remove_leftovers
from gigasr.folders.channel import BoundedChannel, background_thread
from gigasr.folders.job_runner import JobRunner, JobState, ResultStrip, Settings
from gigasr.folders.plan import Job
from gigasr.folders.report import append_record, name_from, normalised_path, read_reports

NotifyJob = Callable[[JobState], None]  # called on progress, and when a file is done, skipped, kept or failed


class ReportStore:
    """The reports of a run: what is known of its files, and what becomes of them."""

    def __init__(self, jobs: list[Job]) -> None:
        """Read the reports and clean up; OSError where a report can't be written."""
        self.folders = {job.target.parent for job in jobs}
        self.remove_leftovers()
        reports = {job.report for job in jobs if job.report is not None}
        self.known = {folder: read_reports(folder) for folder in {report.parent for report in reports}}
        for report in reports:
            report.parent.mkdir(parents=True, exist_ok=True)
            report.open("ab").close()

    def remove_leftovers(self) -> None:
        """Remove the half-written files that processes have left which were killed."""
        for folder in self.folders:
            remove_leftovers(folder)

    def find(self, job: Job) -> dict[str, Any]:
        """The record of a file's output, {} where there is none."""
        return {} if job.report is None else self.known[job.report.parent].get(normalised_path(job.target), {})

    def add(self, state: JobState) -> None:
        """Add a file's line to its report; a file that is done and can't be recorded has failed."""
        job, status = state.job, "done" if state.status == "skipped" else state.status
        if job.report is None or state.status == "skipped" and state.is_known:
            return
        output = job.target.relative_to(job.report.parent).as_posix()
        record = {"input": name_from(job.report.parent, job.source.path), "output": output, **state.record}
        try:
            append_record(job.report, record | {"status": status, "error": str(state.error or "")})
        except OSError as error:
            if state.status != "failed":
                state.status, state.error = "failed", error


class LocalRunner:
    """A run over files: one is upscaled and written strip by strip, the next one is read and the last one finished."""

    def __init__(self, jobs: list[Job], settings: Settings, notify: NotifyJob) -> None:
        self.jobs, self.notify = jobs, notify
        self.runner, self.reports = JobRunner(settings), ReportStore(jobs)
        self.writing: Future[JobState] | None = None

    def start(self) -> None:
        """Go through the files; what reading, upscaling or writing one raises is noted, and the rest goes on.

        On what ends the run, such as KeyboardInterrupt, the file in work is dropped and one being written is finished.
        """
        with background_thread() as reader, background_thread() as writer:
            submitted = (reader.submit(self.runner.read, job, self.reports.find(job)) for job in self.jobs)
            try:
                reading = next(submitted, None)
                while reading is not None:
                    state = reading.result()
                    reading = next(submitted, None)
                    channel = BoundedChannel[ResultStrip]()
                    with channel.closing():
                        writing = writer.submit(self.finish, state, channel)
                        writing.add_done_callback(channel.close)
                        for _ in self.runner.upscale_into(state, channel):
                            self.notify_finished(is_waiting=False)
                            self.notify(state)
                    self.notify_finished(is_waiting=True)
                    self.writing = writing
            finally:
                self.notify_finished(is_waiting=True)

    def finish(self, state: JobState, channel: BoundedChannel[ResultStrip]) -> JobState:
        """Write a file's results, where there are any, and its line of the report; runs in the writer's thread."""
        if state.pictures is not None:
            self.runner.write(state, channel)
        self.reports.add(state)
        return state

    def notify_finished(self, is_waiting: bool) -> None:
        """Tell of the file that was written last."""
        if self.writing is not None and (is_waiting or self.writing.done()):
            state, self.writing = self.writing.result(), None
            self.notify(state)
