"""A run over many files on this machine."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from gigasr.files.atomic import remove_leftovers
from gigasr.folders.handoff import Handoff, background_thread
from gigasr.folders.plan import Job
from gigasr.folders.report import absolute, append_record, name_from, read_reports
from gigasr.folders.worker import Settings, Strip, Work, Worker

Notify = Callable[[Work], None]  # called when a file has made progress, and when it is done, skipped, kept or failed


class Ledger:
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
        return {} if job.report is None else self.known[job.report.parent].get(absolute(job.target), {})

    def add(self, work: Work) -> None:
        """Add a file's line to its report; a file that is done and can't be recorded has failed."""
        job, status = work.job, "done" if work.status == "skipped" else work.status
        if job.report is None or work.status == "skipped" and work.is_known:
            return
        output = job.target.relative_to(job.report.parent).as_posix()
        record = {"input": name_from(job.report.parent, job.source.path), "output": output, **work.record}
        try:
            append_record(job.report, record | {"status": status, "error": str(work.error or "")})
        except OSError as error:
            if work.status != "failed":
                work.status, work.error = "failed", error


class Run:
    """A run over files: one is upscaled and written strip by strip, the next one is read and the last one finished."""

    def __init__(self, jobs: list[Job], settings: Settings, notify: Notify) -> None:
        self.jobs, self.notify = jobs, notify
        self.worker, self.ledger = Worker(settings), Ledger(jobs)
        self.writing: Future[Work] | None = None

    def start(self) -> None:
        """Go through the files; what reading, upscaling or writing one raises is noted, and the rest goes on.

        On what ends the run, such as KeyboardInterrupt, the file in work is dropped and one being written is finished.
        """
        with background_thread() as reader, background_thread() as writer:
            submitted = (reader.submit(self.worker.read, job, self.ledger.find(job)) for job in self.jobs)
            try:
                reading = next(submitted, None)
                while reading is not None:
                    work = reading.result()
                    reading = next(submitted, None)
                    passed = Handoff[Strip]()
                    with passed.ended():
                        writing = writer.submit(self.finish, work, passed)
                        writing.add_done_callback(passed.close)
                        for _ in self.worker.hand_over(work, passed):
                            self.settle(is_waiting=False)
                            self.notify(work)
                    self.settle(is_waiting=True)
                    self.writing = writing
            finally:
                self.settle(is_waiting=True)

    def finish(self, work: Work, passed: Handoff[Strip]) -> Work:
        """Write a file's results, where there are any, and its line of the report; runs in the writer's thread."""
        if work.pictures is not None:
            self.worker.write(work, passed)
        self.ledger.add(work)
        return work

    def settle(self, is_waiting: bool) -> None:
        """Tell of the file that was written last."""
        if self.writing is not None and (is_waiting or self.writing.done()):
            work, self.writing = self.writing.result(), None
            self.notify(work)
