"""What every index of stored content does."""

from random import Random

import pytest

from modelhaul.domain.objects import Blob
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


class TestBlobs:
    def test_are_found_by_their_digest(self, database: Database) -> None:
        blobs = [
            (f"sha256:{n:064x}", Blob(f"{n:064x}", f"models/ä/{n}", 500_000_000_000 + n, f"{n:032x}-7"))
            for n in range(60)
        ]
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

    def test_are_recorded_over_what_was_there(self, database: Database, clock: ManualClock) -> None:
        staged, published = Blob("aa", "staging/task/a", 1, "one"), Blob("aa", "models/a", 1, "two")
        database.content.put_blobs([("sha256:aa", staged)], expires_at=START + 10)
        database.content.put_blobs([("sha256:aa", staged), ("sha256:aa", published)], expires_at=None)
        clock.now = START + 1000
        assert find_blob(database, "sha256:aa") == published

    def test_that_expire_do_not_take_the_place_of_one_that_stays(self, database: Database, clock: ManualClock) -> None:
        published, staged, newer = (Blob("aa", key, 1, "etag") for key in ("models/a", "staging/t/a", "staging/u/a"))
        database.content.put_blobs([("sha256:aa", published)], expires_at=None)
        database.content.put_blobs([("sha256:aa", staged), ("sha256:bb", staged)], expires_at=START + 10)
        database.content.put_blobs([("sha256:bb", newer)], expires_at=START + 20)
        assert find_blob(database, "sha256:bb") == newer
        clock.now = START + 15
        assert find_blob(database, "sha256:bb") == newer
        assert find_blob(database, "sha256:aa") == published

    def test_that_expire_are_found_once_the_one_that_stays_is_forgotten(self, database: Database) -> None:
        published, staged = Blob("aa", "models/a", 1, "one"), Blob("aa", "staging/t/a", 1, "two")
        database.content.put_blobs([("sha256:aa", published)], expires_at=None)
        database.content.put_blobs([("sha256:aa", staged)], expires_at=START + 1e9)
        database.content.forget_blob("sha256:aa", "models/a")
        assert find_blob(database, "sha256:aa") == staged
        database.content.forget_blob("sha256:aa", "staging/t/a")
        assert find_blob(database, "sha256:aa") is None

    @pytest.mark.slow
    def test_any_number_is_forgotten_only_at_the_keys_given(self, database: Database) -> None:
        blobs = [(f"sha256:{n:064x}", Blob(f"{n:064x}", f"models/a/{n}", 1, "etag")) for n in range(250)]
        others = [(f"git-sha1:{n:040x}", Blob(f"{n:064x}", f"models/b/{n}", 1, "etag")) for n in range(5)]
        database.content.put_blobs([*blobs, *others], expires_at=None)
        unknown = [(f"git-sha1:{n:040x}", "models/a/0") for n in range(300)]
        twice = [(digest, "models/a/copy") for digest, _ in blobs[:3]]
        references = [*((digest, blob.key) for digest, blob in blobs[:-1]), *twice, *unknown]
        for _ in range(2):
            database.content.forget_blobs(iter(references))
        assert [digest for digest, _ in blobs if find_blob(database, digest)] == [blobs[-1][0]]
        assert all(find_blob(database, digest) == blob for digest, blob in others)
        database.content.forget_blobs([])

    def test_are_forgotten_only_at_the_key_given(self, database: Database) -> None:
        blob = Blob("aa", "models/a", 1, "etag")
        database.content.put_blobs([("sha256:aa", blob)], expires_at=None)
        database.content.forget_blob("sha256:aa", "staging/task/a")
        assert find_blob(database, "sha256:aa") == blob
        for _ in range(2):
            database.content.forget_blob("sha256:aa", "models/a")
        assert find_blob(database, "sha256:aa") is None
