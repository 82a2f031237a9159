"""Run over many files on this machine."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from gigasr.files.atomic import remove_leftovers
from gigasr.folders.channel import BoundedChannel, background_thread
from gigasr.folders.job_runner import JobRunner, JobState, ResultStrip
from gigasr.folders.plan import Job
from gigasr.folders.report import append_record, name_from, normalised_path, read_reports
from gigasr.options import UpscaleOptions

NotifyJob = Callable[[JobState], None]  # called on progress of a file, and when a file is done, skipped, kept or failed


class ReportStore:
    """Reports of a run: records of earlier runs, and new lines."""

    def __init__(self, jobs: list[Job]) -> None:
        """Read the reports and clean up; OSError if a report is not writable."""
        self.folders = {job.target.parent for job in jobs}
        self.remove_leftovers()
        reports = {job.report for job in jobs if job.report is not None}
        folders = {report.parent for report in reports}
        self.known = {folder: read_reports(folder) for folder in folders}
        for report in reports:
            report.parent.mkdir(parents=True, exist_ok=True)
            report.open("ab").close()

    def remove_leftovers(self) -> None:
        """Remove half-written files of killed processes."""
        for folder in self.folders:
            remove_leftovers(folder)

    def find(self, job: Job) -> dict[str, Any]:
        """Return the record of a file's output; {} without a record."""
        if job.report is None:
            return {}
        records = self.known[job.report.parent]
        return records.get(normalised_path(job.target), {})

    def add(self, state: JobState) -> None:
        """Append a file's line to the report; a finished file without a line has failed.

        Such a file gets the OSError of writing.
        """
        job = state.job
        is_skipped = state.status == "skipped"
        if job.report is None or is_skipped and state.is_known:
            return
        folder = job.report.parent
        record = {
            "input": name_from(folder, job.source.path),
            "output": job.target.relative_to(folder).as_posix(),
            **state.record,
            "status": "done" if is_skipped else state.status,
            "error": str(state.error or ""),
        }
        try:
            append_record(job.report, record)
        except OSError as error:
            if state.status != "failed":
                state.status, state.error = "failed", error


class LocalRunner:
    """Local run over files, strip by strip.

    While a file is upscaled, the next file is read and the last file is written.
    """

    def __init__(self, jobs: list[Job], options: UpscaleOptions, notify: NotifyJob) -> None:
        self.jobs, self.notify = jobs, notify
        self.runner, self.reports = JobRunner(options), ReportStore(jobs)
        self.writing: Future[JobState] | None = None

    def start(self) -> None:
        """Process all files; an error of a file is recorded, and the run goes on.

        If the run is ended, for example by KeyboardInterrupt, the present file is dropped, and the last file is written
        to the end.
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
        """Write a file's results and the line of the report; runs in the writing thread."""
        if state.pictures is not None:
            self.runner.write(state, channel)
        self.reports.add(state)
        return state

    def notify_finished(self, is_waiting: bool) -> None:
        """Notify of the file written last, once it is finished.

        is_waiting: wait for the end of writing
        """
        writing = self.writing
        if writing is not None and (is_waiting or writing.done()):
            state = writing.result()
            self.writing = None
            self.notify(state)
