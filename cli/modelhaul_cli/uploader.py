"""Upload an archive: by one POST, by one PUT, or as a concurrent multipart upload that a later run can resume."""

import contextlib
import threading
import time
import zipfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from modelhaul_cli.client import ApiClient
from modelhaul_cli.concurrency import run_concurrently
from modelhaul_cli.errors import (
    AbortedError,
    AccessError,
    CommandError,
    ConflictError,
    ExpiredError,
    NotFoundError,
    UnavailableError,
    UploadLostError,
    UsageError,
)
from modelhaul_cli.follower import Follower
from modelhaul_cli.output import Screen, format_size
from modelhaul_cli.progress import ByteCounter, open_display
from modelhaul_cli.retries import Outage, iterate_attempts
from modelhaul_cli.store import FILE_CHANGED_REMEDY, FileSlice, ObjectStore
from modelhaul_cli.upload_journal import Archive, UploadJournal, open_journal

MAX_POST_SIZE = 4_500_000  # bytes that the API accepts in one POST
COMPLETION_TIMEOUT = 20.0  # seconds within which the API notices an uploaded object


def open_archive(path: Path, model_name: str | None) -> Archive:
    """Return the archive at `path`. Raises UsageError unless it is a readable ZIP file."""
    try:
        if not path.is_file():
            raise UsageError("File not found", f"{path} {'is a directory' if path.is_dir() else 'does not exist'}.")
        if not zipfile.is_zipfile(path):
            raise UsageError("Not a ZIP archive", f"{path} has no ZIP end of central directory record.")
        return Archive.from_path(path, model_name)
    except OSError as error:
        raise UsageError("Cannot read the file", f"{path}: {error.strerror}.") from None


@dataclass(frozen=True, slots=True)
class ArchiveUploader:
    """`follower` formats commands for messages. `concurrency` is the number of parts that are uploaded at once."""

    api: ApiClient
    api_url: str
    store: ObjectStore
    screen: Screen
    follower: Follower
    concurrency: int

    def upload(self, archive: Archive) -> str:
        """Upload the archive and return the task ID. Raises CommandError. After AbortedError (Ctrl-C), the next run
        resumes an upload of parts, and restarts a single PUT.
        """
        if archive.size <= MAX_POST_SIZE:
            self.screen.print_status(f"Uploading {archive.path.name} ({format_size(archive.size)})")
            try:
                return self.api.submit_archive(archive.path.name, archive.path.read_bytes(), archive.model_name)
            except UsageError as error:
                if error.problem.get("status") != HTTPStatus.CONTENT_TOO_LARGE:
                    raise
        with open_journal(self.api_url, archive) as journal:
            return self._upload_large(archive, journal)

    def _upload_large(self, archive: Archive, journal: UploadJournal) -> str:
        resumed = journal.ticket is not None and self._is_resumable(journal)
        if resumed and self._is_received(journal.task_id):
            return self._finish(journal)
        if not resumed:
            self._start(archive, journal)
        try:
            self._upload_bytes(archive, journal)
        except (ExpiredError, UploadLostError) as error:
            if self._is_accepted(journal.task_id):
                # The response to the last request was lost. Cancelling would end the import.
                return self._finish(journal)
            self._abandon(journal)
            if not resumed:
                error.remedy = "Run the same command again to start a new upload."
                raise
            self.screen.print_status(f"{error.title}. Starting a new upload.")
            self._start(archive, journal)
            self._upload_bytes(archive, journal)
        return self._finish(journal)

    def _start(self, archive: Archive, journal: UploadJournal) -> None:
        journal.start(self.api.open_upload(archive.path.name, archive.size, archive.model_name))

    def _finish(self, journal: UploadJournal) -> str:
        task_id = journal.task_id
        journal.discard()
        return task_id

    def _abandon(self, journal: UploadJournal) -> None:
        """Cancel the task, which would otherwise wait for the upload until it expires, and discard the journal."""
        with contextlib.suppress(CommandError):
            self.api.cancel_task(journal.task_id)
        journal.discard()

    def _is_resumable(self, journal: UploadJournal) -> bool:
        """Return whether the upload of an earlier run is still open. Its URLs may have expired."""
        if journal.upload_until <= datetime.now(UTC):
            return False
        try:
            return bool(self.api.read_task(journal.task_id)["task_status"] != "FAILED")
        except NotFoundError:
            return False

    def _is_received(self, task_id: str) -> bool:
        return bool(self.api.read_task(task_id).get("stage") != "UPLOADING")

    def _is_accepted(self, task_id: str) -> bool:
        """Return whether the archive has arrived, and its task has not failed."""
        try:
            task = self.api.read_task(task_id)
        except NotFoundError:
            return False
        return task.get("stage") != "UPLOADING" and task["task_status"] != "FAILED"

    def _upload_bytes(self, archive: Archive, journal: UploadJournal) -> None:
        urls = UploadUrls(self.api, self.screen, journal)
        try:
            urls.renew_if_old()
            if "parts" in journal.upload:
                self._upload_parts(archive, journal, urls)
            else:
                self._upload_whole(archive, urls)
        except KeyboardInterrupt:
            raise AbortedError(
                "Upload interrupted",
                f"{self._describe_next_run(journal)} To cancel the upload, run:\n  "
                f"{self.follower.format_command('cancel', journal.task_id)}",
            ) from None
        except (ExpiredError, UploadLostError):
            raise
        except UnavailableError as error:
            error.remedy = self._describe_next_run(journal)
            raise
        except AccessError as error:
            error.remedy = f"{error.remedy}\n{self._describe_next_run(journal)}".lstrip()
            raise

    def _describe_next_run(self, journal: UploadJournal) -> str:
        """Return the progress of an interrupted upload and how to continue. Only an upload of parts can be resumed."""
        if "parts" not in journal.upload:
            return "The upload is incomplete. To restart it from the beginning, run the same command again."
        return (
            f"{len(journal.etags)} of {len(journal.upload['parts'])} parts are uploaded. To resume, run the same "
            f"command again before {journal.upload_until:%Y-%m-%d %H:%M} UTC."
        )

    def _upload_whole(self, archive: Archive, urls: "UploadUrls") -> None:
        whole = {"number": 1, "start": 0, "end": archive.size}
        with contextlib.closing(self._upload_concurrently(archive, [whole], urls, lambda: "")) as uploaded:
            for _ in uploaded:
                pass

    def _upload_parts(self, archive: Archive, journal: UploadJournal, urls: "UploadUrls") -> None:
        parts = journal.upload["parts"]
        missing = [part for part in parts if part["number"] not in journal.etags]
        if len(missing) < len(parts):
            self.screen.print_status(
                f"Resuming: {len(parts) - len(missing)} of {len(parts)} parts are already uploaded"
            )

        def describe() -> str:
            return f"{len(journal.etags)}/{len(parts)} parts"

        with contextlib.closing(self._upload_concurrently(archive, missing, urls, describe)) as uploaded:
            for number, etag in uploaded:
                urls.add_part(number, etag)
        if archive.has_changed():
            self._abandon(journal)
            raise UsageError(
                "The file changed during the upload",
                f"{archive.path} was modified. Nothing was imported.",
                remedy=FILE_CHANGED_REMEDY,
            )
        self._complete(journal, urls)

    def _upload_concurrently(
        self, archive: Archive, parts: Sequence[dict[str, Any]], urls: "UploadUrls", describe: Callable[[], str]
    ) -> Generator[tuple[int, str]]:
        """Yield the number and ETag of each part as its upload completes."""
        completed = archive.size - sum(part["end"] - part["start"] for part in parts)
        counter = ByteCounter(archive.size, completed)
        with open_display(self.screen) as display:

            def upload(part: dict[str, Any], stopped: threading.Event) -> tuple[int, str]:
                def put(url: str) -> str:
                    return self._put(archive, part, url, counter, stopped)

                return part["number"], urls.use(lambda: urls.find_part(part["number"]), put)

            def show() -> None:
                display.update(counter.read_state("uploading", describe()))

            yield from run_concurrently(parts, upload, concurrency=self.concurrency, on_poll=show)
            show()

    def _put(
        self, archive: Archive, part: dict[str, Any], url: str, counter: ByteCounter, stopped: threading.Event
    ) -> str:
        """Upload bytes `start` to `end` (exclusive) of the file to `url` and return the ETag."""
        outage = Outage()

        def count(sent: int) -> None:
            counter.add(sent)
            outage.note_activity()

        for attempt in iterate_attempts(self.screen.print_status, outage=outage):
            body = FileSlice(archive.path, part["start"], part["end"], count=count, stopped=stopped)
            with attempt, contextlib.closing(body):
                try:
                    etag = self.store.put(url, body)
                except BaseException:
                    counter.add(-body.sent)
                    raise
        return etag

    def _complete(self, journal: UploadJournal, urls: "UploadUrls") -> None:
        def complete(url: str) -> None:
            for attempt in iterate_attempts(self.screen.print_status):
                with attempt:
                    self.store.complete(url, journal.etags)

        try:
            urls.use(lambda: str(journal.upload["complete"]["url"]), complete)
        except (ExpiredError, UploadLostError):
            # An earlier attempt may have completed the upload, with its response lost.
            deadline = time.monotonic() + COMPLETION_TIMEOUT
            while not self._is_received(journal.task_id):
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)


class UploadUrls:
    """The presigned URLs of an upload, which are signed again when they have expired. Thread-safe."""

    def __init__(self, api: ApiClient, screen: Screen, journal: UploadJournal) -> None:
        self._api = api
        self._screen = screen
        self._journal = journal
        self._lock = threading.Lock()

    def find_part(self, number: int) -> str:
        upload = self._journal.upload
        return str(upload["parts"][number - 1]["url"] if "parts" in upload else upload["url"])

    def add_part(self, number: int, etag: str) -> None:
        with self._lock:
            self._journal.add_part(number, etag)

    def renew_if_old(self) -> None:
        """Sign the URLs again if they have expired since an earlier run. Raises ExpiredError, as `use` does."""
        if self._journal.expires_at <= datetime.now(UTC):
            self._renew(ExpiredError(f"They expired at {self._journal.expires_at:%Y-%m-%d %H:%M} UTC."))

    def use[T](self, find: Callable[[], str], send: Callable[[str], T]) -> T:
        """Return `send(find())`. If S3 rejects the URL as expired, send again with a new one.

        Raises ExpiredError if S3 rejects the new URL too, or if the API signs none, and the errors of `send`.
        """
        with self._lock:
            url = find()
        try:
            return send(url)
        except ExpiredError as error:
            with self._lock:
                if find() == url:  # no other thread has renewed it
                    self._renew(error)
                url = find()
            return send(url)

    def _renew(self, expired: ExpiredError) -> None:
        self._screen.print_status(f"{expired.title}. Requesting new ones.")
        try:
            ticket = self._api.renew_upload(self._journal.task_id, self._journal.missing)
        except (ConflictError, NotFoundError, UsageError):
            # The upload has ended, or the API is of an earlier version that does not sign URLs again. After an
            # AccessError, a later run with other credentials can continue.
            raise expired from None
        if ("parts" in ticket["upload"]) != ("parts" in self._journal.upload):
            # The task was opened by an earlier version of the API, which did not record the parts.
            raise expired
        self._journal.renew(ticket)
