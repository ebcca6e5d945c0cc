"""Sends an archive: by one POST, by one PUT, or in parts, several at once, that a later run can go on with."""

import contextlib
import threading
import time
import zipfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelhaul_cli.client import ApiClient
from modelhaul_cli.errors import CommandError, ExpiredError, NotFoundError, StoppedError, UnavailableError, UsageError
from modelhaul_cli.following import Follower
from modelhaul_cli.output import Screen, format_size
from modelhaul_cli.parallel import run_parallel
from modelhaul_cli.progress import ByteCounter, open_display
from modelhaul_cli.retrying import open_attempts
from modelhaul_cli.store import FileSlice, ObjectStore
from modelhaul_cli.upload_journal import Archive, UploadJournal, open_journal

MAX_POSTED = 4_500_000  # bytes that the API takes in one POST
ARRIVAL_SECONDS = 20.0  # within which the API hears of an object that arrived
_TOO_LARGE = 413


def find_archive(path: Path, model_name: str | None) -> Archive:
    """Raises UsageError unless it is a ZIP that can be read."""
    try:
        if not path.is_file():
            raise UsageError("There is no such file", f"{path} is {'a folder' if path.is_dir() else 'not there'}.")
        if not zipfile.is_zipfile(path):
            raise UsageError("This is not a ZIP archive", f"{path} does not end as one does.")
        return Archive.find(path, model_name)
    except OSError as error:
        raise UsageError("The file cannot be read", f"{path}: {error.strerror}.") from None


@dataclass(frozen=True, slots=True)
class ArchiveUploader:
    """`follower` names the commands that a person may go on with; `workers` parts are sent at once."""

    api: ApiClient
    api_url: str
    store: ObjectStore
    screen: Screen
    follower: Follower
    workers: int

    def send(self, archive: Archive) -> str:
        """The id of the task. Raises CommandError; StoppedError at Ctrl-C, after which another run goes on."""
        if archive.size <= MAX_POSTED:
            self.screen.say(f"Sending {archive.path.name}, {format_size(archive.size)}")
            try:
                return self.api.submit_archive(archive.path.name, archive.path.read_bytes(), archive.model_name)
            except UsageError as error:
                if error.problem.get("status") != _TOO_LARGE:
                    raise
        with open_journal(self.api_url, archive) as journal:
            return self._send_large(archive, journal)

    def _send_large(self, archive: Archive, journal: UploadJournal) -> str:
        resumed = journal.ticket is not None and self._find_upload(journal)
        if resumed and self._has_arrived(journal.task_id):
            return self._finish(journal)
        if not resumed:
            self._begin(archive, journal)
        try:
            self._send_bytes(archive, journal)
        except ExpiredError as error:
            self._give_up(journal)
            if not resumed:
                error.remedy = "Run the same command again: it starts anew."
                raise
            self.screen.say(f"{error.title}: starting anew.")
            self._begin(archive, journal)
            self._send_bytes(archive, journal)
        return self._finish(journal)

    def _begin(self, archive: Archive, journal: UploadJournal) -> None:
        journal.begin(self.api.open_upload(archive.path.name, archive.size, archive.model_name))

    def _finish(self, journal: UploadJournal) -> str:
        task_id = journal.task_id
        journal.discard()
        return task_id

    def _give_up(self, journal: UploadJournal) -> None:
        """The task would only wait for what does not come."""
        with contextlib.suppress(CommandError):
            self.api.cancel_task(journal.task_id)
        journal.discard()

    def _find_upload(self, journal: UploadJournal) -> bool:
        """Whether the task of an earlier run is still there to be gone on with."""
        if journal.expires_at <= datetime.now(UTC):
            return False
        try:
            return bool(self.api.read_task(journal.task_id)["task_status"] != "FAILED")
        except NotFoundError:
            return False

    def _has_arrived(self, task_id: str) -> bool:
        return bool(self.api.read_task(task_id).get("stage") != "UPLOADING")

    def _send_bytes(self, archive: Archive, journal: UploadJournal) -> None:
        try:
            if "parts" in journal.upload:
                self._send_parts(archive, journal)
            else:
                self._send_whole(archive, journal)
        except KeyboardInterrupt:
            raise StoppedError(
                "Stopped sending",
                f"{self._describe_rest(journal)}. Run the same command again to go on, until "
                f"{journal.expires_at:%Y-%m-%d %H:%M} UTC; or give it up:\n  "
                f"{self.follower.name_command('cancel', journal.task_id)}",
            ) from None
        except ExpiredError:
            raise
        except UnavailableError as error:
            error.remedy = f"{self._describe_rest(journal)}. Run the same command again to go on."
            raise

    def _describe_rest(self, journal: UploadJournal) -> str:
        if "parts" in journal.upload:
            return f"{len(journal.etags)} of {len(journal.upload['parts'])} parts have arrived"
        return "Nothing of it has arrived"

    def _send_whole(self, archive: Archive, journal: UploadJournal) -> None:
        whole = {"number": 1, "url": journal.upload["url"], "start": 0, "end": archive.size}
        with contextlib.closing(self._send_each(archive, [whole], lambda: "")) as sent:
            for _ in sent:
                pass

    def _send_parts(self, archive: Archive, journal: UploadJournal) -> None:
        parts = journal.upload["parts"]
        missing = [part for part in parts if part["number"] not in journal.etags]
        if len(missing) < len(parts):
            self.screen.say(f"Going on: {len(parts) - len(missing)} of {len(parts)} parts have arrived before")

        def count() -> str:
            return f"{len(journal.etags)}/{len(parts)} parts"

        with contextlib.closing(self._send_each(archive, missing, count)) as sent:
            for number, etag in sent:
                journal.add_part(number, etag)
        if archive.has_changed():
            self._give_up(journal)
            raise UsageError(
                "The file changed while it was being sent", f"{archive.path} is not what it was; nothing was imported."
            )
        self._complete(journal)

    def _send_each(
        self, archive: Archive, parts: Sequence[dict[str, Any]], describe: Callable[[], str]
    ) -> Generator[tuple[int, str]]:
        """Number and ETag of each part as it arrives, several on their way at once."""
        here = archive.size - sum(part["end"] - part["start"] for part in parts)
        counter = ByteCounter(archive.size, here)
        with open_display(self.screen) as display:

            def send(part: dict[str, Any], stopped: threading.Event) -> tuple[int, str]:
                return part["number"], self._send_part(archive, part, counter, stopped)

            def show() -> None:
                display.update(counter.read_position("sending", describe()))

            yield from run_parallel(parts, send, workers=self.workers, tick=show)
            show()

    def _send_part(self, archive: Archive, part: dict[str, Any], counter: ByteCounter, stopped: threading.Event) -> str:
        """The ETag of bytes `start` to `end` (excluded) of the file, once they are at `url`."""
        for attempt in open_attempts(self.screen.say):
            body = FileSlice(archive.path, part["start"], part["end"], count=counter.add, stopped=stopped)
            with attempt, contextlib.closing(body):
                try:
                    etag = self.store.put(part["url"], body)
                except BaseException:
                    counter.add(-body.sent)
                    raise
        return etag

    def _complete(self, journal: UploadJournal) -> None:
        try:
            for attempt in open_attempts(self.screen.say):
                with attempt:
                    self.store.complete(journal.upload["complete"]["url"], journal.etags)
        except ExpiredError:
            # Perhaps it is complete, and the answer that said so was lost.
            deadline = time.monotonic() + ARRIVAL_SECONDS
            while not self._has_arrived(journal.task_id):
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
