"""What every repository of files does: groups, leases, offsets, results and counts."""

from dataclasses import replace
from random import Random

import pytest

from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.errors import LeaseLostError
from modelhaul.domain.files import FileCounts, FileGroup, FileKind, FileRecord, SourceFile
from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity
from modelhaul.domain.gate import FileCheck, PickleOpinion, SecondOpinion
from tests.contract.database_builders import (
    START,
    find_plan,
    lease,
    make_file,
    make_record,
    plan,
    plan_groups,
    read_group,
    record,
    save,
)
from tests.fakes.database import Database

SYMLINK = replace(make_file("link"), kind=FileKind.SYMLINK)


class TestGroups:
    def test_have_the_numbers_and_files_of_the_plan(self, database: Database) -> None:
        first = [make_file(path, size) for size, path in enumerate(["z", "a/b", "ä", "😀"])]
        second = [replace(make_file("x", 500_000_000_000), locator="0,100,8,0,50,"), SYMLINK]
        task = plan_groups(database, first, second)
        plan(database, make_file("another task's"))
        groups = [
            FileGroup(find_plan(task), number, tuple(FileRecord(task.id, file) for file in files))
            for number, files in enumerate((first, second))
        ]
        assert list(database.files.list_groups(find_plan(task))) == groups
        assert database.files.find_groups(find_plan(task), [1, 7, 1]) == groups[1:]

    def test_keep_digests_of_every_algorithm(self, database: Database) -> None:
        digests = [Digest(a, f"{7:0{n}x}") for a, n in ((Algorithm.GIT_SHA1, 40), (Algorithm.CRC32, 8))]
        files = [SourceFile(digest.algorithm, 1, digest) for digest in digests]
        assert [r.file for r in read_group(database, plan(database, *files)).records] == files

    def test_of_what_is_not_transferred_are_done(self, database: Database) -> None:
        submodule = replace(make_file("sub"), kind=FileKind.SUBMODULE)
        task = plan_groups(database, [SYMLINK, submodule], [make_file(), SYMLINK])
        assert [group.is_done for group in database.files.list_groups(find_plan(task))] == [True, False]
        assert database.leases.lease_group(find_plan(task), 0, owner="a", now=START, until=START + 90) is None

    @pytest.mark.slow
    def test_are_found_in_any_number(self, database: Database) -> None:
        """More than a page of a query (1 MB) and than a request of any other kind."""
        random = Random(7)
        groups = [[make_file(random.randbytes(500).hex()) for _ in range(20)] for _ in range(120)]
        task = plan_groups(database, *groups)
        numbers = list(range(120))
        listed = list(database.files.list_groups(find_plan(task)))
        assert [(g.number, [r.file for r in g.records]) for g in listed] == list(zip(numbers, groups, strict=True))
        found = database.files.find_groups(find_plan(task), [*numbers, 999])
        assert sorted(found, key=lambda group: group.number) == listed

    def test_of_an_unknown_plan_are_none(self, database: Database) -> None:
        assert list(database.files.list_groups("unknown#0")) == []
        assert database.files.find_groups("unknown#0", [0]) == []
        assert database.files.find_groups("unknown#0", []) == []
        assert database.leases.lease_group("unknown#0", 0, owner="a", now=START, until=START + 90) is None
        assert database.files.find_groups("unknown#0", [0]) == []

    def test_planned_again_keep_their_state(self, database: Database) -> None:
        file, other = make_file("a"), make_file("b")
        task = plan(database, file, other)
        lease(database, task)
        record(database, task, make_record(task, file))
        before = read_group(database, task)
        database.files.put_groups(find_plan(task), [[file, other]])
        assert read_group(database, task) == before

    def test_of_two_plans_do_not_mix(self, database: Database) -> None:
        task = plan(database, make_file("a"))
        database.files.put_groups(f"{task.id}#other", [[make_file("b")], [make_file("c")]])
        assert [r.file.path for g in database.files.list_groups(find_plan(task)) for r in g.records] == ["a"]

    def test_with_the_longest_paths_fit(self, database: Database) -> None:
        random = Random(7)
        files = [make_file(random.randbytes(512).hex()) for _ in range(90)]
        task = plan(database, *files)
        lease(database, task)
        record(database, task, *(make_record(task, file) for file in files))
        assert read_group(database, task).records == tuple(make_record(task, file) for file in files)


class TestLease:
    def test_excludes_others_until_it_ends(self, database: Database) -> None:
        file = make_file()
        task = plan(database, file)
        leased = FileGroup(find_plan(task), 0, (FileRecord(task.id, file),), lease_until=START + 90)
        assert lease(database, task) == leased
        leases, plan_id = database.leases, find_plan(task)
        assert leases.lease_group(plan_id, 0, owner="b", now=START + 89.5, until=START + 200) is None
        assert read_group(database, task) == leased
        taken = leases.lease_group(plan_id, 0, owner="b", now=START + 90, until=START + 200)
        assert taken == replace(leased, lease_until=START + 200)

    def test_can_be_taken_again_by_its_owner(self, database: Database) -> None:
        task = plan(database, make_file())
        lease(database, task)
        save(database, task, 10)
        assert lease(database, task).offset == 10

    def test_is_refused_for_a_done_group(self, database: Database) -> None:
        file = make_file()
        task = plan(database, file)
        lease(database, task)
        record(database, task, make_record(task, file))
        for owner in ("a", "b"):
            leased = database.leases.lease_group(find_plan(task), 0, owner=owner, now=START + 999, until=START + 1000)
            assert leased is None

    def test_is_renewed_only_by_its_owner(self, database: Database) -> None:
        task = plan(database, make_file())
        lease(database, task)
        database.leases.renew_lease(find_plan(task), 0, owner="a", until=START + 500)
        for number, owner in ((0, "b"), (7, "a")):
            with pytest.raises(LeaseLostError):
                database.leases.renew_lease(find_plan(task), number, owner=owner, until=START + 900)
        assert read_group(database, task).lease_until == START + 500

    def test_is_released_only_by_its_owner(self, database: Database) -> None:
        task = plan(database, make_file())
        lease(database, task)
        database.leases.release_lease(find_plan(task), 0, owner="b")
        database.leases.release_lease(find_plan(task), 7, owner="a")
        assert read_group(database, task).lease_until == START + 90
        for _ in range(2):
            database.leases.release_lease(find_plan(task), 0, owner="a")
        assert read_group(database, task).lease_until == 0
        lease(database, task, owner="b")
        with pytest.raises(LeaseLostError):
            database.leases.renew_lease(find_plan(task), 0, owner="a", until=START + 900)


class TestOffset:
    def test_is_stored_and_counted(self, database: Database) -> None:
        task = plan(database, make_file(size=1000))
        leased = lease(database, task)
        assert save(database, task, 400) == FileCounts(bytes_done=400)
        assert read_group(database, task) == replace(leased, offset=400, lease_until=START + 120)

    def test_counts_by_the_difference_of_offsets(self, database: Database) -> None:
        task = plan(database, make_file(size=1000))
        lease(database, task)
        offsets = [0, 400, 400, 700, 100, 0, 0, 300]
        assert [save(database, task, offset).bytes_done for offset in offsets] == offsets
        assert read_group(database, task).offset == 300

    def test_counts_bytes_of_ended_imports_as_reused(self, database: Database) -> None:
        file = make_file(size=1000)
        task = plan(database, file)
        lease(database, task)
        assert save(database, task, 400, continued=400) == FileCounts(bytes_done=400, bytes_reused=400)
        assert save(database, task, 700) == FileCounts(bytes_done=700, bytes_reused=400)
        assert read_group(database, task).continued == 400
        assert record(database, task, make_record(task, file, check=None)) == FileCounts(0, 1000, 400)
        assert record(database, task, make_record(task, file)) == FileCounts(1, 1000, 400)

    def test_counts_nothing_as_reused_if_the_file_starts_again(self, database: Database) -> None:
        task = plan(database, make_file(size=1000))
        lease(database, task)
        save(database, task, 400, continued=400)
        assert save(database, task, 0) == FileCounts()
        assert save(database, task, 500) == FileCounts(bytes_done=500)

    def test_needs_the_lease(self, database: Database) -> None:
        file = make_file()
        task = plan(database, file)
        with pytest.raises(LeaseLostError):
            save(database, task, 400)
        lease(database, task)
        with pytest.raises(LeaseLostError):
            save(database, task, 400, owner="b")
        with pytest.raises(LeaseLostError):
            save(database, replace(task, plan_id="unknown#0"), 400)
        assert record(database, task, make_record(task, file)).bytes_done == file.size
        with pytest.raises(LeaseLostError):
            save(database, task, 400)
        assert read_group(database, task).offset == 0


class TestResults:
    def test_of_all_files_end_the_group(self, database: Database) -> None:
        moved, copied = make_file("moved", 10), make_file("copied", 200)
        task = plan_groups(database, [make_file("first", 3000)], [moved, copied, SYMLINK])
        lease(database, task, 1)
        records = [make_record(task, moved), make_record(task, copied, reused=True)]
        assert record(database, task, *records, number=1) == FileCounts(2, 210, 200)
        assert read_group(database, task, 1) == FileGroup(find_plan(task), 1, (*records, FileRecord(task.id, SYMLINK)))

    def test_of_some_files_extend_the_lease(self, database: Database) -> None:
        first, second = make_file("first", 10), make_file("second", 200)
        task = plan(database, first, second)
        lease(database, task)
        assert record(database, task, make_record(task, first)) == FileCounts(1, 10)
        group = read_group(database, task)
        assert group.records == (make_record(task, first), FileRecord(task.id, second))
        assert (group.is_done, group.lease_until) == (False, START + 150)
        assert record(database, task, make_record(task, second)) == FileCounts(2, 210)
        assert read_group(database, task).is_done

    def test_count_bytes_of_stored_files_and_files_that_are_checked(self, database: Database) -> None:
        file = make_file(size=1000)
        task = plan(database, file)
        lease(database, task)
        save(database, task, 400)
        stored = make_record(task, file, check=None)
        assert record(database, task, stored) == FileCounts(0, 1000)
        group = read_group(database, task)
        assert (group.records, group.offset, group.is_done) == ((stored,), 0, False)
        assert record(database, task, make_record(task, file)) == FileCounts(1, 1000)
        assert read_group(database, task).is_done

    def test_keep_the_offset_of_the_next_file(self, database: Database) -> None:
        first, second = make_file("first", 1000), make_file("second", 1000)
        task = plan(database, first, second)
        lease(database, task)
        record(database, task, make_record(task, first, check=None))
        assert save(database, task, 400) == FileCounts(0, 1400)
        assert record(database, task, make_record(task, first)) == FileCounts(1, 1400)
        assert read_group(database, task).offset == 400
        assert record(database, task, make_record(task, second)) == FileCounts(2, 2000)

    def test_given_twice_count_once(self, database: Database) -> None:
        first, second = make_file("first", 10), make_file("second", 200)
        task = plan(database, first, second)
        lease(database, task)
        reused = make_record(task, first, reused=True)
        for _ in range(2):
            assert record(database, task, reused, reused) == FileCounts(1, 10, 10)
        for _ in range(2):
            assert record(database, task, make_record(task, first), make_record(task, second)) == FileCounts(2, 210, 10)
        assert read_group(database, task).records[0] == reused

    def test_after_a_lost_lease_are_refused_until_the_group_is_done(self, database: Database) -> None:
        first, second = make_file("first", 10), make_file("second", 200)
        task = plan(database, first, second)
        lease(database, task)
        record(database, task, make_record(task, first))
        taken = database.leases.lease_group(find_plan(task), 0, owner="b", now=START + 999, until=START + 1000)
        assert taken is not None
        assert taken.records[0].is_done
        for late in ([make_record(task, second)], []):
            with pytest.raises(LeaseLostError):
                record(database, task, *late)
        counts = record(database, task, make_record(task, second, reused=True), owner="b")
        assert counts == FileCounts(2, 210, 200)
        assert record(database, task, make_record(task, second)) == counts
        assert read_group(database, task).records[1].reused

    def test_need_a_group_and_a_lease(self, database: Database) -> None:
        file = make_file()
        task = plan(database, file)
        for number in (0, 7):
            with pytest.raises(LeaseLostError):
                record(database, task, make_record(task, file), number=number)
        assert not read_group(database, task).is_done

    def test_of_files_of_other_groups_are_ignored(self, database: Database) -> None:
        first, second = make_file("first", 10), make_file("second", 200)
        task = plan_groups(database, [first], [second])
        lease(database, task)
        counts = record(database, task, make_record(task, second), make_record(task, first))
        assert counts == FileCounts(1, 10)
        assert not read_group(database, task, 1).is_done

    def test_are_counted_over_many_groups(self, database: Database) -> None:
        files = [make_file(f"{number}", 10**number) for number in range(40)]
        task = plan_groups(database, *([file] for file in files))
        for number, file in enumerate(files):
            lease(database, task, number)
            counts = record(database, task, make_record(task, file), number=number)
        assert counts == FileCounts(40, int("1" * 40))


class TestChecks:
    def test_are_returned_without_pickles(self, database: Database) -> None:
        finding = Finding(FindingKind.PICKLE_IMPORT, Severity.HIGH, "Pickle imports os.\ud800ä")
        report = ContentReport("torch-zip", "reason", (finding,), is_loadable=True, unread=False, pickles=b"pickles")
        opinion = PickleOpinion(SecondOpinion.MALICIOUS, ("one", "two"))
        checks = [FileCheck(), FileCheck("problem", "placeholder", report, opinion)]
        files = [make_file("first"), make_file("second")]
        task = plan(database, *files)
        lease(database, task)
        record(database, task, *(make_record(task, f, check=c) for f, c in zip(files, checks, strict=True)))
        stored = [r.check for r in read_group(database, task).records]
        assert stored == [checks[0], replace(checks[1], report=replace(report, pickles=None))]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "characters", ["0123456789abcdef", "".join(map(chr, range(0x1_0000, 0x2_0000))), "\x00\ud800"]
    )
    def test_of_a_hostile_model_fit_with_the_kinds_of_their_findings(self, database: Database, characters: str) -> None:
        random = Random(7)

        def write(length: int) -> str:
            return "".join(random.choices(characters, k=length))

        texts = [write(1000) for _ in range(2000)]
        findings = [Finding(FindingKind.CODE, Severity.LOW, text) for text in texts]
        findings += [Finding(kind, Severity.HIGH, text) for kind in FindingKind for text in texts[:100]]
        files = [make_file(f"{number:03}") for number in range(90)]
        task = plan(database, *files)
        records = []
        for file in files:
            random.shuffle(findings)
            report = ContentReport("torch-zip", write(1000), tuple(findings), is_loadable=True)
            opinion = PickleOpinion(SecondOpinion.MALICIOUS, tuple(random.sample(texts, 20)))
            records.append(make_record(task, file, check=FileCheck(write(1000), write(1000), report, opinion)))
        lease(database, task)
        counts = record(database, task, *records)
        assert counts.files_done == 90
        for stored in read_group(database, task).records:
            assert stored.check is not None
            assert stored.check.report is not None
            found = stored.check.report.findings
            assert {finding.kind for finding in found if finding.severity is Severity.HIGH} == set(FindingKind)
            assert len(found[0].detail) >= 30
            assert stored.check.problem
            assert stored.check.opinion is not None
            assert stored.check.opinion.reasons


class TestCopied:
    def test_groups_count_once(self, database: Database) -> None:
        task = plan(database, make_file())
        plan_id = find_plan(task)
        assert database.files.list_copied(plan_id) == set()
        assert database.files.record_copied(plan_id, range(40)) == FileCounts(groups_copied=40)
        assert database.files.record_copied(plan_id, range(20, 60)) == FileCounts(groups_copied=60)
        assert database.files.record_copied(plan_id, [199, 200, 99_999, 3]) == FileCounts(groups_copied=63)
        assert database.files.record_copied(plan_id, []) == FileCounts(groups_copied=63)
        assert database.files.list_copied(plan_id) == {*range(60), 199, 200, 99_999}

    def test_groups_count_beside_files(self, database: Database) -> None:
        file = make_file(size=10)
        task = plan(database, file)
        lease(database, task)
        record(database, task, make_record(task, file))
        assert database.files.record_copied(find_plan(task), [0]) == FileCounts(1, 10, 0, 1)
        assert [group.number for group in database.files.list_groups(find_plan(task))] == [0]
