"""What every repository of files does: plans, leases, checkpoints and results."""

from dataclasses import replace

import pytest

from modelhaul.domain.errors import (
    LeaseLostError,
    TaskEndedError,
)
from modelhaul.domain.files import FileRecord
from modelhaul.domain.tasks import Progress
from tests.contract.database_builders import (
    GATED,
    START,
    at,
    lease,
    make_checkpoint,
    make_file,
    make_result,
    plan,
    read_file,
    read_task,
    save,
)
from tests.fakes.clock import ManualClock
from tests.fakes.database import Database


class TestFiles:
    def test_are_listed_in_path_order(self, database: Database) -> None:
        paths = ["z", "a/b", "a", "a-b", "ä", "Z", "😀", "￿"]
        files = {path: make_file(path, size) for size, path in enumerate(paths)}
        task = plan(database, *files.values())
        plan(database, make_file("another task's"))
        assert list(database.files.list_files(task.id)) == [FileRecord(task.id, files[path]) for path in sorted(paths)]

    @pytest.mark.slow
    def test_any_number_can_be_planned(self, database: Database) -> None:
        files = [make_file(f"{number:04}") for number in range(250)]
        task = plan(database, *files)
        assert [record.file for record in database.files.list_files(task.id)] == files
        found = database.files.find_files(task.id, [file.path for file in files] + ["unknown"])
        assert sorted(record.file.path for record in found) == [file.path for file in files]

    def test_of_an_unknown_task_are_none(self, database: Database) -> None:
        assert list(database.files.list_files("unknown")) == []
        assert database.files.find_files("unknown", ["a"]) == []
        assert database.files.find_files("unknown", []) == []

    def test_planned_again_keep_what_became_of_them(self, database: Database) -> None:
        done, moving, waiting = replace(make_file("done"), locator="1"), make_file(), make_file("waiting")
        task = plan(database, done, moving)
        database.files.finish_files(task.id, [make_result(done)], check_at=START)
        lease(database, task.id)
        save(database, task.id, make_checkpoint(10))
        before = list(database.files.list_files(task.id))
        database.files.put_files(task.id, [replace(done, size=1, locator="2"), moving, waiting])
        assert list(database.files.list_files(task.id)) == [*before, FileRecord(task.id, waiting)]


class TestLease:
    def test_shuts_others_out_until_it_ends(self, database: Database) -> None:
        file = make_file()
        task = plan(database, file)
        leased = database.files.lease_file(task.id, file.path, owner="a", now=START, until=START + 90)
        assert leased == FileRecord(task.id, file, lease_until=START + 90)
        assert database.files.lease_file(task.id, file.path, owner="b", now=START + 89.5, until=START + 200) is None
        assert read_file(database, task.id).lease_until == START + 90
        taken = database.files.lease_file(task.id, file.path, owner="b", now=START + 90, until=START + 200)
        assert taken is not None
        assert taken.lease_until == START + 200

    def test_can_be_taken_again_by_its_owner(self, database: Database) -> None:
        task = plan(database, make_file())
        lease(database, task.id)
        save(database, task.id, make_checkpoint(10))
        assert lease(database, task.id).checkpoint == make_checkpoint(10)

    def test_is_not_given_on_an_unknown_or_done_file(self, database: Database) -> None:
        file = make_file()
        task = plan(database, file)
        database.files.finish_files(task.id, [make_result(file)], check_at=START)
        for path in (file.path, "unknown"):
            assert database.files.lease_file(task.id, path, owner="a", now=START, until=START + 90) is None
        assert [record.file for record in database.files.list_files(task.id)] == [file]

    def test_is_renewed_only_by_its_owner(self, database: Database) -> None:
        task = plan(database, make_file())
        lease(database, task.id)
        database.files.renew_lease(task.id, "model.safetensors", owner="a", until=START + 500)
        assert read_file(database, task.id).lease_until == START + 500
        for path, owner in (("model.safetensors", "b"), ("unknown", "a")):
            with pytest.raises(LeaseLostError):
                database.files.renew_lease(task.id, path, owner=owner, until=START + 900)
        assert read_file(database, task.id).lease_until == START + 500

    def test_is_released_only_by_its_owner(self, database: Database) -> None:
        task = plan(database, make_file())
        lease(database, task.id)
        database.files.release_lease(task.id, "model.safetensors", owner="b")
        database.files.release_lease(task.id, "unknown", owner="a")
        assert read_file(database, task.id).lease_until == START + 90
        for _ in range(2):
            database.files.release_lease(task.id, "model.safetensors", owner="a")
        assert read_file(database, task.id).lease_until == 0
        lease(database, task.id, owner="b")
        with pytest.raises(LeaseLostError):
            database.files.renew_lease(task.id, "model.safetensors", owner="a", until=START + 900)


class TestCheckpoint:
    def test_is_stored_and_counted(self, database: Database, clock: ManualClock) -> None:
        task = plan(database, make_file(size=1000))
        database.tasks.postpone_check(task.id, check_at=START, sweeps=3)
        leased = lease(database, task.id)
        clock.now = START + 5
        save(database, task.id, make_checkpoint(400), check_at=START + 700)
        assert read_file(database, task.id) == replace(leased, checkpoint=make_checkpoint(400), lease_until=START + 120)
        assert read_task(database, task.id) == replace(
            task,
            progress=replace(task.progress, bytes_done=400),
            check_at=START + 700,
            updated_at=at(START + 5),
            bytes_counted_at=at(START + 5),
            sweeps=0,
        )

    def test_counts_by_the_difference_of_offsets(self, database: Database) -> None:
        task = plan(database, make_file(size=1000))
        lease(database, task.id)
        counted = []
        for offset in (0, 400, 400, 700, 100, None, None, 300):
            save(database, task.id, None if offset is None else make_checkpoint(offset))
            counted.append(read_task(database, task.id).progress.bytes_done)
        assert counted == [0, 400, 400, 700, 100, 0, 0, 300]

    def test_with_none_is_discarded(self, database: Database) -> None:
        task = plan(database, make_file())
        lease(database, task.id)
        save(database, task.id, make_checkpoint(400))
        save(database, task.id, None)
        assert read_file(database, task.id).checkpoint is None

    def test_needs_the_lease(self, database: Database) -> None:
        task = plan(database, make_file())
        with pytest.raises(LeaseLostError):
            save(database, task.id, make_checkpoint(400))
        lease(database, task.id)
        with pytest.raises(LeaseLostError):
            save(database, task.id, make_checkpoint(400), owner="b")
        with pytest.raises(LeaseLostError):
            save(database, "unknown", make_checkpoint(400))
        assert read_file(database, task.id).checkpoint is None
        assert read_task(database, task.id) == task

    def test_of_an_ended_task_is_refused(self, database: Database) -> None:
        task = plan(database, make_file())
        lease(database, task.id)
        database.imports.fail_import(task.id, GATED, check_at=START)
        with pytest.raises(TaskEndedError):
            save(database, task.id, make_checkpoint(400))
        assert read_file(database, task.id).checkpoint is None
        assert read_task(database, task.id).progress.bytes_done == 0

    def test_of_ten_thousand_parts_fits(self, database: Database) -> None:
        task = plan(database, make_file(size=500_000_000_000))
        lease(database, task.id)
        checkpoint = make_checkpoint(500_000_000_000, parts=10_000)
        save(database, task.id, checkpoint)
        assert read_file(database, task.id).checkpoint == checkpoint
        [listed] = database.files.list_files(task.id)
        assert listed.checkpoint == checkpoint

    def test_may_have_no_part_and_no_etag_yet(self, database: Database) -> None:
        task = plan(database, make_file())
        lease(database, task.id)
        checkpoint = replace(make_checkpoint(0, parts=0), source_etag=None)
        save(database, task.id, checkpoint)
        assert read_file(database, task.id).checkpoint == checkpoint


class TestFinishFiles:
    def test_marks_and_counts(self, database: Database, clock: ManualClock) -> None:
        moved, copied, waiting = make_file("moved", 10), make_file("copied", 200), make_file("waiting", 3000)
        task = plan(database, moved, copied, waiting)
        database.tasks.postpone_check(task.id, check_at=START, sweeps=3)
        clock.now = START + 5
        results = [make_result(moved), make_result(copied, reused=True)]
        progress = database.files.finish_files(task.id, results, check_at=START + 800)
        assert progress == Progress(2, 3, bytes_done=210, bytes_total=3210, bytes_reused=200)
        assert read_task(database, task.id) == replace(
            task,
            progress=progress,
            check_at=START + 800,
            updated_at=at(START + 5),
            bytes_counted_at=at(START + 5),
            sweeps=0,
        )
        assert list(database.files.list_files(task.id)) == [
            FileRecord(task.id, r.file, done=True, sha256=r.sha256, etag=r.etag, reused=r.reused)
            for r in reversed(results)
        ] + [FileRecord(task.id, waiting)]

    def test_counts_what_checkpoints_have_not(self, database: Database) -> None:
        file = make_file(size=1000)
        task = plan(database, file)
        lease(database, task.id)
        save(database, task.id, make_checkpoint(400))
        progress = database.files.finish_files(task.id, [make_result(file)], check_at=START)
        assert (progress.files_done, progress.bytes_done) == (1, 1000)
        assert read_file(database, task.id) == FileRecord(
            task.id, file, done=True, sha256="ab" * 32, etag=f"{'cd' * 16}-3"
        )
        with pytest.raises(LeaseLostError):
            save(database, task.id, make_checkpoint(500))

    def test_counts_no_file_twice(self, database: Database) -> None:
        first, second = make_file("first", 10), make_file("second", 200)
        task = plan(database, first, second)
        once = database.files.finish_files(task.id, [make_result(first, reused=True)], check_at=START)
        assert database.files.finish_files(task.id, [make_result(first, reused=True)], check_at=START) == once
        both = database.files.finish_files(task.id, [make_result(first), make_result(second)], check_at=START)
        assert both == Progress(2, 2, bytes_done=210, bytes_total=210, bytes_reused=10)
        assert read_file(database, task.id, "first").reused

    def test_counts_a_file_that_is_given_twice_once(self, database: Database) -> None:
        file = make_file(size=10)
        task = plan(database, file)
        progress = database.files.finish_files(task.id, [make_result(file), make_result(file)], check_at=START)
        assert (progress.files_done, progress.bytes_done) == (1, 10)

    def test_leaves_out_files_that_were_not_planned(self, database: Database) -> None:
        file = make_file(size=10)
        task = plan(database, file)
        results = [make_result(file), make_result(make_file("unknown"))]
        progress = database.files.finish_files(task.id, results, check_at=START)
        assert (progress.files_done, progress.bytes_done) == (1, 10)
        assert [record.file for record in database.files.list_files(task.id)] == [file]

    @pytest.mark.slow
    def test_takes_ninety_files_and_not_more(self, database: Database) -> None:
        files = [make_file(f"{number:02}", 1) for number in range(91)]
        task = plan(database, *files)
        with pytest.raises(ValueError, match="limit is 90"):
            database.files.finish_files(task.id, [make_result(file) for file in files], check_at=START)
        progress = database.files.finish_files(task.id, [make_result(file) for file in files[:90]], check_at=START)
        assert (progress.files_done, progress.bytes_done) == (90, 90)

    def test_of_an_ended_task_is_refused(self, database: Database) -> None:
        first, second = make_file("first"), make_file("second")
        task = plan(database, first, second)
        database.files.finish_files(task.id, [make_result(first)], check_at=START)
        database.imports.fail_import(task.id, GATED, check_at=START)
        before = read_task(database, task.id)
        for results in ([make_result(first)], [make_result(second)], []):
            with pytest.raises(TaskEndedError):
                database.files.finish_files(task.id, results, check_at=START)
        with pytest.raises(TaskEndedError):
            database.files.finish_files("unknown", [make_result(first)], check_at=START)
        assert read_task(database, task.id) == before
        assert not read_file(database, task.id, "second").done
