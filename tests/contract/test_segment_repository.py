"""What every repository of segments does: uploads of large files, their changes, and their parts."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from modelhaul.domain.files import Part
from modelhaul.domain.segments import Claim, FileUpload, UploadKey
from tests.fakes.database import Database

KEY = UploadKey("task#0a1b2c3d", 7, 0)
NEXT = UploadKey("next#4e5f6a7b", 0, 3)
UPLOAD = FileUpload(upload_id="2~upload", size=40 * 10**9, part_size=32 * 2**20, source_etag='"etag"')
CHANGED = replace(
    UPLOAD,
    hashed=4,
    hash_state=bytes(range(208)),
    claims=(Claim(5, 9, "a" * 36, 1_700_000_000.25), Claim(9, 13, "b", 1_700_000_060.0)),
    version=1,
)


def make_parts(first: int, end: int) -> list[Part]:
    return [Part(n, f"{n:032x}", (n * 2_654_435_761) % 2**32) for n in range(first, end)]


class TestUploads:
    @pytest.mark.parametrize(
        "upload",
        [
            UPLOAD,
            CHANGED,
            replace(UPLOAD, source_etag=None, ranged=False),
            replace(UPLOAD, object_key="staging/task/ä", parts_key=KEY),
        ],
    )
    def test_are_found_as_they_were_recorded(self, database: Database, upload: FileUpload) -> None:
        assert database.segments.find_upload(KEY) is None
        assert database.segments.create_upload(KEY, upload)
        assert database.segments.find_upload(KEY) == upload

    def test_belong_to_one_file(self, database: Database) -> None:
        database.segments.create_upload(KEY, UPLOAD)
        for other in (replace(KEY, plan_id="other#1"), replace(KEY, group=8), replace(KEY, position=1)):
            assert database.segments.find_upload(other) is None

    def test_are_recorded_once(self, database: Database) -> None:
        def create(number: int) -> bool:
            return database.segments.create_upload(KEY, replace(UPLOAD, upload_id=str(number)))

        with ThreadPoolExecutor(4) as pool:
            created = list(pool.map(create, range(4)))
        assert sorted(created) == [False, False, False, True]
        found = database.segments.find_upload(KEY)
        assert found is not None
        assert found.upload_id == str(created.index(True))

    def test_are_replaced_by_their_next_version(self, database: Database) -> None:
        database.segments.create_upload(KEY, UPLOAD)
        assert database.segments.replace_upload(KEY, UPLOAD, CHANGED)
        assert database.segments.find_upload(KEY) == CHANGED
        ended = replace(CHANGED, claims=(), version=2, source_etag='"other"', ranged=False)
        assert database.segments.replace_upload(KEY, CHANGED, ended)
        assert database.segments.find_upload(KEY) == ended

    def test_are_not_replaced_after_another_change(self, database: Database) -> None:
        assert not database.segments.replace_upload(KEY, UPLOAD, CHANGED)
        database.segments.create_upload(KEY, UPLOAD)
        database.segments.replace_upload(KEY, UPLOAD, CHANGED)
        assert not database.segments.replace_upload(KEY, UPLOAD, replace(CHANGED, hashed=8))
        other = replace(CHANGED, upload_id="another")
        assert not database.segments.replace_upload(KEY, other, replace(other, version=2))
        assert database.segments.find_upload(KEY) == CHANGED

    def test_accept_one_of_several_changes(self, database: Database) -> None:
        database.segments.create_upload(KEY, UPLOAD)

        def change(number: int) -> bool:
            return database.segments.replace_upload(KEY, UPLOAD, replace(UPLOAD, hashed=number, version=1))

        with ThreadPoolExecutor(4) as pool:
            changed = list(pool.map(change, range(4)))
        assert sorted(changed) == [False, False, False, True]

    def test_are_deleted_by_their_id(self, database: Database) -> None:
        assert not database.segments.delete_upload(KEY, "2~upload")
        database.segments.create_upload(KEY, UPLOAD)
        assert not database.segments.delete_upload(KEY, "another")
        assert database.segments.find_upload(KEY) == UPLOAD
        assert database.segments.delete_upload(KEY, "2~upload")
        assert database.segments.find_upload(KEY) is None
        assert database.segments.create_upload(KEY, replace(UPLOAD, upload_id="new"))

    def test_are_listed_by_plan(self, database: Database) -> None:
        assert database.segments.list_uploads(KEY.plan_id) == {}
        uploads = {
            replace(KEY, group=group, position=position): CHANGED for group, position in ((0, 0), (7, 1), (12, 9))
        }
        for key, upload in uploads.items():
            database.segments.create_upload(key, upload)
        database.segments.create_upload(NEXT, UPLOAD)
        changed = replace(CHANGED, version=2)
        database.segments.replace_upload(replace(KEY, group=0), CHANGED, changed, make_parts(1, 5))
        uploads[replace(KEY, group=0)] = changed
        assert database.segments.list_uploads(KEY.plan_id) == uploads


class TestTakenOverUploads:
    def test_belong_to_the_new_file(self, database: Database) -> None:
        database.segments.create_upload(KEY, CHANGED)
        assert database.segments.take_over_upload(KEY, CHANGED, NEXT)
        last, first = CHANGED.hand_over(KEY)
        assert database.segments.find_upload(KEY) == last
        assert database.segments.find_upload(NEXT) == first
        assert last.is_taken_over
        assert (first.claims, first.source_etag, first.parts_key) == ((), None, KEY)

    def test_are_not_changed_by_their_former_owner(self, database: Database) -> None:
        database.segments.create_upload(KEY, CHANGED)
        database.segments.take_over_upload(KEY, CHANGED, NEXT)
        last, _ = CHANGED.hand_over(KEY)
        assert not database.segments.replace_upload(KEY, CHANGED, replace(CHANGED, version=2), make_parts(5, 9))
        assert not database.segments.create_upload(KEY, replace(UPLOAD, upload_id="new"))
        assert not database.segments.delete_upload(KEY, CHANGED.upload_id)
        assert database.segments.find_upload(KEY) == last
        assert database.segments.list_uploads(KEY.plan_id) == {KEY: last}

    def test_keep_the_place_of_their_parts(self, database: Database) -> None:
        database.segments.create_upload(KEY, UPLOAD)
        known = replace(UPLOAD, hashed=4, version=1)
        database.segments.replace_upload(KEY, UPLOAD, known, make_parts(1, 5))
        database.segments.take_over_upload(KEY, known, NEXT)
        second = known.hand_over(KEY)[1]
        changed = replace(second, hashed=8, version=1)
        assert database.segments.replace_upload(NEXT, second, changed, make_parts(5, 9))
        third = replace(NEXT, plan_id="third#8c9d")
        assert database.segments.take_over_upload(NEXT, changed, third)
        last = replace(changed.hand_over(NEXT)[1], hashed=12, version=1)
        assert database.segments.replace_upload(third, changed.hand_over(NEXT)[1], last, make_parts(9, 13))
        assert last.parts_key == KEY
        assert database.segments.list_parts(KEY, "2~upload") == make_parts(1, 13)

    def test_are_taken_over_in_their_known_version(self, database: Database) -> None:
        assert not database.segments.take_over_upload(KEY, UPLOAD, NEXT)
        database.segments.create_upload(KEY, UPLOAD)
        database.segments.replace_upload(KEY, UPLOAD, CHANGED)
        assert not database.segments.take_over_upload(KEY, UPLOAD, NEXT)
        assert not database.segments.take_over_upload(KEY, replace(CHANGED, upload_id="another"), NEXT)
        database.segments.create_upload(NEXT, replace(UPLOAD, upload_id="own"))
        assert not database.segments.take_over_upload(KEY, CHANGED, NEXT)
        assert database.segments.find_upload(KEY) == CHANGED
        assert database.segments.find_upload(NEXT) == replace(UPLOAD, upload_id="own")

    def test_have_one_new_owner(self, database: Database) -> None:
        database.segments.create_upload(KEY, CHANGED)

        def take_over(number: int) -> bool:
            return database.segments.take_over_upload(KEY, CHANGED, replace(NEXT, group=number))

        with ThreadPoolExecutor(4) as pool:
            taken = list(pool.map(take_over, range(4)))
        assert sorted(taken) == [False, False, False, True]
        found = [database.segments.find_upload(replace(NEXT, group=number)) is not None for number in range(4)]
        assert found == taken


class TestParts:
    def test_are_listed_by_number(self, database: Database) -> None:
        database.segments.create_upload(KEY, UPLOAD)
        for version, (first, end) in enumerate(((1, 5), (5, 9), (9, 10), (10, 10_001))):
            known = replace(UPLOAD, version=version)
            changed = replace(UPLOAD, version=version + 1)
            assert database.segments.replace_upload(KEY, known, changed, make_parts(first, end))
        assert database.segments.list_parts(KEY, "2~upload") == make_parts(1, 10_001)

    def test_are_recorded_with_the_upload_or_not_at_all(self, database: Database) -> None:
        database.segments.create_upload(KEY, UPLOAD)
        assert database.segments.replace_upload(KEY, UPLOAD, CHANGED, make_parts(1, 5))
        assert not database.segments.replace_upload(KEY, UPLOAD, replace(CHANGED, hashed=2), make_parts(1, 3))
        assert database.segments.find_upload(KEY) == CHANGED
        assert database.segments.list_parts(KEY, "2~upload") == make_parts(1, 5)

    def test_belong_to_one_upload(self, database: Database) -> None:
        database.segments.create_upload(KEY, UPLOAD)
        database.segments.replace_upload(KEY, UPLOAD, CHANGED, make_parts(1, 5))
        assert database.segments.list_parts(KEY, "another") == []
        assert database.segments.list_parts(replace(KEY, position=1), "2~upload") == []
        assert database.segments.list_parts(replace(KEY, plan_id="other#1"), "2~upload") == []
