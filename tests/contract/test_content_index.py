"""What every index of stored content does."""

import itertools
from random import Random

import pytest

from modelhaul.domain.objects import Blob
from modelhaul.domain.segments import KeptUpload, UploadKey
from tests.contract.database_builders import (
    START,
    find_blob,
)
from tests.fakes.clock import ManualClock
from tests.fakes.database import Database


class TestGroups:
    def test_are_found_until_they_expire(self, database: Database, clock: ManualClock) -> None:
        blobs = {
            f"git-sha1:{n:040x}": Blob(f"{n:064x}", f"staging/task/ä/{n}", 100 + n, f"{n:032x}") for n in range(128)
        }
        database.content.put_group("ab" * 32, iter(blobs.items()), expires_at=START + 10)
        assert database.content.find_group("ab" * 32) == blobs
        assert database.content.find_group("cd" * 32) == {}
        assert database.content.find_blobs([*blobs, "ab" * 32]) == {}
        clock.now = START + 10
        assert database.content.find_group("ab" * 32) == {}

    def test_are_replaced(self, database: Database) -> None:
        first, second = Blob("aa", "staging/t/a", 1, "one"), Blob("bb", "staging/u/b", 2, "two-3")
        database.content.put_group("ab" * 32, [("git-sha1:aa", first)], expires_at=START + 10)
        database.content.put_group("ab" * 32, [("git-sha1:bb", second)], expires_at=START + 20)
        assert database.content.find_group("ab" * 32) == {"git-sha1:bb": second}

    def test_with_the_longest_keys_fit(self, database: Database) -> None:
        random = Random(7)
        blobs = {
            f"git-sha1:{n:040x}": Blob(random.randbytes(32).hex(), random.randbytes(512).hex(), 1, "etag")
            for n in range(128)
        }
        database.content.put_group("ab" * 32, blobs.items(), expires_at=START + 10)
        assert database.content.find_group("ab" * 32) == blobs


class TestKeptUploads:
    def test_are_found_until_they_expire(self, database: Database, clock: ManualClock) -> None:
        upload = KeptUpload(UploadKey("task#0a1b2c3d", 1234, 56), START + 10)
        database.content.put_kept_upload("sha256:aa", upload)
        assert database.content.find_kept_upload("sha256:aa") == upload
        assert database.content.find_kept_upload("sha256:bb") is None
        assert database.content.find_blobs(["sha256:aa"]) == {}
        clock.now = START + 10
        assert database.content.find_kept_upload("sha256:aa") is None

    def test_are_replaced(self, database: Database) -> None:
        first, second = (KeptUpload(UploadKey(plan_id, 0, 0), START + 10) for plan_id in ("a#1", "b#2"))
        database.content.put_kept_upload("sha256:aa", first)
        database.content.put_kept_upload("sha256:aa", second)
        assert database.content.find_kept_upload("sha256:aa") == second


class TestBlobs:
    def test_are_found_by_their_digest(self, database: Database) -> None:
        blobs = [
            (f"sha256:{n:064x}", Blob(f"{n:064x}", f"models/ä/{n}", 500_000_000_000 + n, f"{n:032x}-7"))
            for n in range(60)
        ]
        blobs.append((f"git-sha1:{1:040x}", Blob("aa", "models/" + "x" * 1017, 1, "etag")))  # the longest key
        database.content.put_blobs(iter(blobs), expires_at=None)
        absent = f"git-sha1:{0:040x}"
        assert database.content.find_blobs([*dict(blobs), absent, blobs[0][0]]) == dict(blobs)
        assert database.content.find_blobs([absent]) == database.content.find_blobs([]) == {}
        database.content.put_blobs([], expires_at=None)

    def test_are_forgotten_when_they_expire(self, database: Database, clock: ManualClock) -> None:
        blob = Blob("aa", "staging/task/a", 1, "etag")
        database.content.put_blobs([("sha256:aa", blob)], expires_at=START + 10)
        clock.now = START + 9
        assert find_blob(database, "sha256:aa") == blob
        clock.now = START + 10
        assert find_blob(database, "sha256:aa") is None

    def test_that_do_not_expire_take_precedence(self, database: Database, clock: ManualClock) -> None:
        published, staged, newer = (Blob("aa", key, 1, "etag") for key in ("models/a", "staging/u/a", "staging/t/a"))
        database.content.put_blobs([("sha256:aa", published)], expires_at=None)
        database.content.put_blobs([("sha256:aa", staged), ("sha256:bb", staged)], expires_at=START + 10)
        database.content.put_blobs([("sha256:aa", newer), ("sha256:bb", newer)], expires_at=START + 20)
        for now in (START, START + 15):
            clock.now = now
            assert find_blob(database, "sha256:aa") == published
            assert find_blob(database, "sha256:bb") == newer, "it expires last"
        clock.now = START + 20
        assert find_blob(database, "sha256:aa") == published
        assert find_blob(database, "sha256:bb") is None

    def test_of_several_objects_are_all_found_in_any_order(self, database: Database) -> None:
        """Each with the digests of its own object, as they are forgotten one after the other."""
        keys = ["models/a/x", "models/a/y", "models/b/x", "staging/t/x"]
        for order in itertools.permutations(keys):
            for key in keys:
                blob = Blob("aa", key, 1, key)
                expires_at = START + 1e9 if key.startswith("staging/") else None
                database.content.put_blobs([("sha256:aa", blob), ("git-sha1:bb", blob)], expires_at=expires_at)
            left = set(keys)
            for key in order:
                for digest in ("sha256:aa", "git-sha1:bb"):
                    found = find_blob(database, digest)
                    assert found is not None
                    assert found.key in left
                    assert found.etag == found.key
                database.content.forget_blobs([("sha256:aa", key), ("git-sha1:bb", key)])
                left.remove(key)
            assert database.content.find_blobs(["sha256:aa", "git-sha1:bb"]) == {}

    def test_of_one_object_are_replaced(self, database: Database) -> None:
        first, second = Blob("aa", "models/a", 1, "one"), Blob("aa", "models/a", 1, "two")
        database.content.put_blobs([("sha256:aa", first)], expires_at=None)
        database.content.put_blobs([("sha256:aa", first), ("sha256:aa", second)], expires_at=None)
        assert find_blob(database, "sha256:aa") == second
        database.content.forget_blobs([("sha256:aa", "models/a")])
        assert find_blob(database, "sha256:aa") is None

    @pytest.mark.slow
    def test_any_number_is_forgotten_only_at_the_keys_given(self, database: Database) -> None:
        blobs = [(f"sha256:{n:064x}", Blob(f"{n:064x}", f"models/a/{n}", 1, "etag")) for n in range(250)]
        others = [(f"git-sha1:{n:040x}", Blob(f"{n:064x}", f"models/b/{n}", 1, "etag")) for n in range(5)]
        database.content.put_blobs([*blobs, *others], expires_at=None)
        unknown = [(f"git-sha1:{n:040x}", "models/a/0") for n in range(300)]
        twice = [(digest, key) for digest, blob in blobs[:3] for key in ("models/a/copy", blob.key)]
        references = [*((digest, blob.key) for digest, blob in blobs[:-1]), *twice, *unknown]
        for _ in range(2):
            database.content.forget_blobs(iter(references))
        assert [digest for digest, _ in blobs if find_blob(database, digest)] == [blobs[-1][0]]
        assert all(find_blob(database, digest) == blob for digest, blob in others)
        database.content.forget_blobs([])

    def test_whose_object_is_gone_are_forgotten_one_by_one(self, database: Database) -> None:
        blobs = [Blob("aa", key, 1, "etag") for key in ("models/a", "models/b", "staging/t/a")]
        database.content.put_blobs([("sha256:aa", blob) for blob in blobs[:2]], expires_at=None)
        database.content.put_blobs([("sha256:aa", blobs[2])], expires_at=START + 1e9)
        forgotten = []
        while (found := find_blob(database, "sha256:aa")) is not None:
            for _ in range(2):
                database.content.forget_blob("sha256:aa", found)
            forgotten.append(found)
        assert sorted(forgotten, key=lambda blob: blob.key) == blobs
        assert forgotten[-1] == blobs[2]

    def test_that_were_recorded_again_are_not_forgotten(self, database: Database) -> None:
        """Another function found the object gone, just before an import stored it again."""
        blob = Blob("aa", "models/a", 1, "etag")
        database.content.put_blobs([("sha256:aa", blob)], expires_at=None)
        gone = find_blob(database, "sha256:aa")
        assert gone == blob
        database.content.put_blobs([("sha256:aa", blob)], expires_at=None)
        for stale in (gone, blob):
            database.content.forget_blob("sha256:aa", stale)
        assert find_blob(database, "sha256:aa") == blob
