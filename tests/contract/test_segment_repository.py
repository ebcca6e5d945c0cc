"""What every repository of segments does: uploads of large files, their changes, and their parts."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from modelhaul.domain.files import Part
from modelhaul.domain.segments import Claim, FileUpload, UploadKey
from tests.fakes.database import Database

KEY = UploadKey("task#0a1b2c3d", 7, 0)
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
    @pytest.mark.parametrize("upload", [UPLOAD, CHANGED, replace(UPLOAD, source_etag=None, ranged=False)])
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
        ended = replace(CHANGED, claims=(), version=2)
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
        database.segments.delete_upload(KEY, "2~upload")
        database.segments.create_upload(KEY, UPLOAD)
        database.segments.delete_upload(KEY, "another")
        assert database.segments.find_upload(KEY) == UPLOAD
        database.segments.delete_upload(KEY, "2~upload")
        assert database.segments.find_upload(KEY) is None
        assert database.segments.create_upload(KEY, replace(UPLOAD, upload_id="new"))


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
