"""Content by digest: small in memory, large in files that are whole or not there, holes kept."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.errors import NotFoundError, StepFailedError, StoreError
from executor.workspace.objects import SMALL_BYTES, Batch, ObjectStore, data_ranges
from gonogo.digests import digest

LARGE = b"0123456789abcdef" * 8192
UNKNOWN = digest(b"never stored")


@pytest.fixture
def ledger() -> dict[str, bytes]:
    """Stands for the table of small objects."""
    return {}


@pytest.fixture
def store(tmp_path: Path, ledger: dict[str, bytes]) -> ObjectStore:
    return ObjectStore(tmp_path / "objects", ledger.get)


@pytest.fixture
def batch(store: ObjectStore) -> Iterator[Batch]:
    made = store.batch()
    yield made
    made.drop()


def files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "objects").rglob("*") if path.is_file()]


def test_small_content_makes_no_file(tmp_path: Path, batch: Batch) -> None:
    """What is small is kept for the ledger's transaction, and can be read at once."""
    data = b"x" * SMALL_BYTES
    name = batch.put_bytes(data)
    assert name == digest(data)
    assert batch.small == {name: data}
    assert files(tmp_path) == []
    assert batch.read(name, 1, 3) == b"xxx"
    assert (batch.has(name), batch.size(name)) == (True, SMALL_BYTES)
    fd = batch.open(name)
    assert os.pread(fd, SMALL_BYTES + 1, 0) == data
    os.close(fd)


def test_large_content_gets_its_name_with_the_sync(tmp_path: Path, store: ObjectStore, batch: Batch) -> None:
    """Before the sync no file bears the digest's name; after it the store has the content."""
    name = batch.put_bytes(LARGE)
    assert batch.read(name, 0, len(LARGE)) == LARGE
    assert not store.has(name)
    batch.sync()
    assert store.has(name)
    assert store.size(name) == len(LARGE)
    assert store.read(name, 16, 4) == b"0123"
    hexadecimal = name.removeprefix("sha256:")
    assert files(tmp_path) == [tmp_path / "objects" / hexadecimal[:2] / hexadecimal[2:]]


def test_the_same_content_is_kept_once(tmp_path: Path, batch: Batch) -> None:
    """Putting the same bytes again, before or after the sync, makes no second file."""
    batch.put_bytes(LARGE)
    batch.put_bytes(LARGE)
    batch.sync()
    batch.put_bytes(LARGE)
    batch.sync()
    assert len(files(tmp_path)) == 1


def test_dropped_content_is_gone(tmp_path: Path, batch: Batch) -> None:
    """A dry run that came to nothing leaves nothing behind."""
    batch.put_bytes(b"small")
    batch.put_bytes(LARGE)
    batch.drop()
    assert batch.small == {}
    assert files(tmp_path) == []


def test_a_new_start_cleans_what_a_dead_process_left(tmp_path: Path, store: ObjectStore) -> None:
    """Unfinished files are removed; finished objects stay."""
    kept = store.batch()
    name = kept.put_bytes(LARGE)
    kept.sync()
    store.batch().put_bytes(LARGE + b"!")
    assert len(files(tmp_path)) == 2
    store.clean()
    assert len(files(tmp_path)) == 1
    assert store.has(name)


def test_a_stream_keeps_its_holes(tmp_path: Path, store: ObjectStore, batch: Batch) -> None:
    """A sparse file is stored sparse, under the digest of its logical bytes."""
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.seek(20 << 20)
        file.write(b"end")
        file.truncate(40 << 20)
    fd = os.open(source, os.O_RDONLY)
    name, size = batch.put_fd(fd, limit=1 << 30)
    os.close(fd)
    batch.sync()
    assert (name, size) == (digest(source.read_bytes()), 40 << 20)
    kept = store.path(name).stat()
    assert kept.st_size == 40 << 20
    assert kept.st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("size", [0, 1, SMALL_BYTES, SMALL_BYTES + 1, 3 << 20])
def test_a_stream_is_the_same_as_its_bytes(tmp_path: Path, batch: Batch, size: int) -> None:
    """Streaming a file gives the digest and the content of its bytes, whatever its size."""
    source = tmp_path / "file"
    source.write_bytes(os.urandom(size))
    fd = os.open(source, os.O_RDONLY)
    assert batch.put_fd(fd, limit=size) == (digest(source.read_bytes()), size)
    os.close(fd)
    assert batch.read(digest(source.read_bytes()), 0, size + 1) == source.read_bytes()


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_stream_over_the_limit_is_refused(tmp_path: Path, batch: Batch, size: int) -> None:
    """Content over the limit has the reason TOO_LARGE and leaves nothing."""
    source = tmp_path / "file"
    source.write_bytes(b"x" * size)
    fd = os.open(source, os.O_RDONLY)
    with pytest.raises(StepFailedError) as caught:
        batch.put_fd(fd, limit=size - 1)
    os.close(fd)
    assert caught.value.fault.reason == "TOO_LARGE"
    assert files(tmp_path) == []


def test_a_huge_sparse_file_is_bounded_by_the_limit(tmp_path: Path, batch: Batch) -> None:
    """A file of 1 TiB without content is refused by its length, not read to its end."""
    source = tmp_path / "huge"
    with source.open("wb") as file:
        file.truncate(1 << 40)
    fd = os.open(source, os.O_RDONLY)
    with pytest.raises(StepFailedError):
        batch.put_fd(fd, limit=4 << 30)
    os.close(fd)


def test_the_store_finds_small_content_in_the_ledger(store: ObjectStore, ledger: dict[str, bytes]) -> None:
    """What the ledger took over from a batch is read through the store."""
    ledger[digest(b"small")] = b"small"
    assert store.has(digest(b"small"))
    assert store.size(digest(b"small")) == 5
    assert store.read(digest(b"small"), 1, 2) == b"ma"
    assert store.held(digest(b"small")) == b"small"


@pytest.mark.parametrize("name", [UNKNOWN, "sha256:../../etc/passwd", "", "sha256:" + "A" * 64])
def test_unknown_and_malformed_digests_are_not_found(store: ObjectStore, name: str) -> None:
    """A digest that nobody stored, or that is none, is NOT_FOUND and never a path."""
    with pytest.raises(NotFoundError):
        store.read(name, 0, 1)
    with pytest.raises(NotFoundError):
        store.size(name)


def test_a_small_file_keeps_its_holes_too(tmp_path: Path, store: ObjectStore, batch: Batch) -> None:
    """A file with a hole is kept as a file whatever its size, beside the same bytes without one."""
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.truncate(16 * 1024)
        file.seek(12 * 1024)
        file.write(b"end")
    data = source.read_bytes()
    assert batch.put_bytes(data) == digest(data)
    fd = os.open(source, os.O_RDONLY)
    assert batch.put_fd(fd, limit=1 << 20) == (digest(data), len(data))
    expected = tuple(data_ranges(fd, len(data)))
    os.close(fd)
    for objects in (batch, store):
        fd = objects.open(digest(data))
        assert tuple(data_ranges(fd, len(data))) == expected
        assert os.pread(fd, len(data), 0) == data
        os.close(fd)
        assert objects.held(digest(data)) is None
        batch.sync()


def test_the_object_with_holes_takes_the_place_of_the_one_without(
    tmp_path: Path, store: ObjectStore, batch: Batch
) -> None:
    """The same content twice is kept as the file that has more holes, in whichever order they come."""
    size = 1 << 20
    sparse, full = tmp_path / "sparse", tmp_path / "full"
    full.write_bytes(bytes(size))
    with sparse.open("wb") as file:
        file.truncate(size)
    name = ""
    for path in (full, sparse, full):
        fd = os.open(path, os.O_RDONLY)
        name, _ = batch.put_fd(fd, limit=size)
        os.close(fd)
        batch.sync()
    assert store.path(name).stat().st_blocks == 0
    assert len(files(tmp_path)) == 1


def test_what_is_relied_on_is_young_again(store: ObjectStore, batch: Batch) -> None:
    """An object that a batch finds stored already can not be collected under its hands."""
    name = batch.put_bytes(LARGE)
    batch.sync()
    os.utime(store.path(name), (1, 1))
    batch.put_bytes(LARGE)
    assert not store.remove(name, unused_since=2)
    assert store.has(name)
    os.utime(store.path(name), (1, 1))
    batch.sync()
    assert not store.remove(name, unused_since=2)


def test_an_object_that_went_before_the_sync(store: ObjectStore, batch: Batch) -> None:
    """A batch that relies on what is no longer there can not be finished."""
    name = batch.put_bytes(LARGE)
    batch.sync()
    batch.put_bytes(LARGE)
    store.path(name).unlink()
    with pytest.raises(StoreError, match="relied"):
        batch.sync()


def test_only_what_is_old_is_removed(tmp_path: Path, store: ObjectStore, batch: Batch) -> None:
    """Removing an object says whether it is gone; one that is not there is."""
    name = batch.put_bytes(LARGE)
    batch.sync()
    (tmp_path / "objects" / "README").write_text("not ours")
    (store.path(name).parent / "README").write_text("not ours")
    assert list(store.large()) == [name]
    assert not store.remove(name, unused_since=1)
    assert store.remove(name, unused_since=2**40)
    assert not store.has(name)
    assert store.remove(name, unused_since=1)
    assert list(store.large()) == []
