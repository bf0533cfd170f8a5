# SPDX-License-Identifier: BSD-3-Clause
"""A disk that is full, files that are not ours to write, and octets that are no database: said, and survived."""

from __future__ import annotations

import os
import re
import resource
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from isthmus.errors import StoreUnavailable
from isthmus.store.sqlite import SqliteStore
from store.audit import audit
from store.files import filled, refused
from store.material import ANNA, BERT, SHARED, bind, ports, register, remember

# A disk that fails


@contextmanager
def small_disk() -> Iterator[Path]:
    directory = tempfile.mkdtemp()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "isthmus-test", directory], check=False, capture_output=True
    )
    if mounted.returncode:
        Path(directory).rmdir()
        pytest.skip("may not mount a small tmpfs here")
    try:
        yield Path(directory)
    finally:
        subprocess.run(["umount", directory], check=True)
        Path(directory).rmdir()


def fill_up(store: SqliteStore, most: int = 2000) -> tuple[int, str]:
    """Commit until it fails; how many batches did not, and what the failure says."""
    for n in range(most):
        try:
            store.commit([bind(ANNA, ports(str(n)), bind_id=n), remember(ANNA, counter=n)], now=100.0)
        except StoreUnavailable as error:
            return n, str(error)
    raise AssertionError("it never failed")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")
def test_a_full_disk_is_told_and_survived() -> None:
    with small_disk() as directory:
        ballast = directory / "ballast"
        ballast.write_bytes(bytes(200_000))
        with closing(SqliteStore(directory / "leases.db")) as store:
            done, problem = fill_up(store)
            assert "cannot write: database or disk is full" in problem
            assert "make room" in problem
            assert len(store.leases()) == done
            ballast.unlink()
            store.commit([bind(BERT, ports("60000"))], now=101.0)
        with closing(SqliteStore(directory / "leases.db")) as store:
            assert len(store.leases()) == done + 1
            audit(store, [SHARED])


def test_a_write_that_fails_is_told_and_survived(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(SqliteStore(path)) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        try:
            done, problem = fill_up(store)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "cannot write: disk I/O error (SQLITE_IOERR_WRITE); the disk failed" in problem
        assert len(store.leases()) == done
        store.commit([bind(BERT, ports("60000"))], now=101.0)
    with closing(SqliteStore(path)) as store:
        assert len(store.leases()) == done + 1
        audit(store, [SHARED])


# What is wrong with it


def test_no_directory(tmp_path: Path) -> None:
    problem = refused(tmp_path / "var" / "leases.db")
    assert problem.endswith(f"No such file or directory; make the directory {tmp_path / 'var'} first")


def test_a_directory_instead_of_a_file(tmp_path: Path) -> None:
    assert refused(tmp_path).endswith("it is a directory; name a file in it")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else for a moment")
@pytest.mark.parametrize(("file_mode", "directory_mode"), [(0o444, 0o755), (0o666, 0o555), (0o000, 0o777)])
def test_a_file_that_may_not_be_written(file_mode: int, directory_mode: int) -> None:
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    path = directory / "leases.db"
    try:
        filled(path)
        path.chmod(file_mode)
        directory.chmod(directory_mode)
        os.seteuid(65534)
        try:
            problem = refused(path)
        finally:
            os.seteuid(0)
        assert re.search("must be allowed to (read and write it|write the file and its directory)", problem)
    finally:
        directory.chmod(0o700)
        shutil.rmtree(directory)


def test_no_database_at_all(path: Path) -> None:
    path.write_bytes(b"interface eth0\n" * 1000)
    assert "no SQLite database" in refused(path)
    assert path.read_bytes().startswith(b"interface eth0")


def test_the_beginning_overwritten(path: Path) -> None:
    filled(path)
    octets = bytearray(path.read_bytes())
    octets[0:100] = bytes(range(100))
    path.write_bytes(octets)
    assert "put it aside" in refused(path)


def test_the_rest_overwritten(path: Path) -> None:
    filled(path)
    octets = bytearray(path.read_bytes())
    octets[4096:] = b"\xa5" * (len(octets) - 4096)
    path.write_bytes(octets)
    problem = refused(path)
    assert "the file is damaged; put it aside, then restore a copy" in problem


def test_the_end_cut_off(path: Path) -> None:
    filled(path)
    path.write_bytes(path.read_bytes()[:8192])
    assert "damaged" in refused(path)


def test_somebody_elses_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE cookies (host TEXT)")
        other.commit()
    before = path.read_bytes()
    assert "not isthmus's; name another file" in refused(path)
    assert path.read_bytes() == before


def test_a_store_from_a_newer_isthmus(path: Path) -> None:
    filled(path)
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("INSERT INTO schema_file VALUES ('0007_leases_of_the_future.sql', 0)")
        newer.commit()
    problem = refused(path)
    assert "newer isthmus (it has 0007_leases_of_the_future.sql" in problem
    assert "run that isthmus again, or restore a copy from before the upgrade" in problem


def test_a_store_that_was_closed(path: Path) -> None:
    store = SqliteStore(path)
    store.close()
    store.close()
    for attempt in (lambda: store.commit([register(ANNA)], now=1.0), store.leases, lambda: store.owner_of(1)):
        with pytest.raises(StoreUnavailable, match="closed"):
            attempt()
