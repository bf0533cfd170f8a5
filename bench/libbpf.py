# SPDX-License-Identifier: BSD-3-Clause
"""The little of libbpf that the generator and the sink of a benchmark need."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

LIVE_FRAMES = 1 << 1
MOST_FRAMES = (1 << 31) - 1
MOST_AT_ONCE = 256
"""The largest batch (TEST_XDP_MAX_BATCH)."""

_lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
for _name in (
    "bpf_object__open_file",
    "bpf_object__find_program_by_name",
    "bpf_object__find_map_by_name",
    "bpf_program__attach",
):
    getattr(_lib, _name).restype = ctypes.c_void_p


class _TestRun(ctypes.Structure):
    """``struct bpf_test_run_opts``."""

    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_char_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    ]


class BpfObject:
    """An object file, loaded."""

    def __init__(self, path: Path) -> None:
        self._object = ctypes.c_void_p(_lib.bpf_object__open_file(str(path).encode(), None))
        if not self._object:
            raise OSError(ctypes.get_errno(), f"{path}: libbpf cannot open it")
        if _lib.bpf_object__load(self._object):
            raise OSError(ctypes.get_errno(), f"{path}: the kernel does not load it: {os.strerror(ctypes.get_errno())}")

    def program(self, name: str) -> int:
        """The descriptor of a program."""
        found = ctypes.c_void_p(_lib.bpf_object__find_program_by_name(self._object, name.encode()))
        return int(_lib.bpf_program__fd(found))

    @contextlib.contextmanager
    def attached(self, name: str) -> Iterator[None]:
        """Let a tracing program run."""
        found = ctypes.c_void_p(_lib.bpf_object__find_program_by_name(self._object, name.encode()))
        link = ctypes.c_void_p(_lib.bpf_program__attach(found))
        if not link:
            raise OSError(ctypes.get_errno(), f"{name}: it cannot be attached")
        try:
            yield
        finally:
            _lib.bpf_link__destroy(link)

    def close(self) -> None:
        """Let go of programs and maps."""
        _lib.bpf_object__close(self._object)

    def map(self, name: str) -> int:
        """The descriptor of a map."""
        found = ctypes.c_void_p(_lib.bpf_object__find_map_by_name(self._object, name.encode()))
        return int(_lib.bpf_map__fd(found))


def update(map_fd: int, key: int, value: bytes) -> None:
    """Write one element of an array."""
    number = ctypes.c_uint32(key)
    if _lib.bpf_map_update_elem(map_fd, ctypes.byref(number), value, ctypes.c_uint64(0)):
        raise OSError(ctypes.get_errno(), "bpf_map_update_elem")


def lookup(map_fd: int, key: int, octets: int) -> bytes:
    """Read one element of an array."""
    number, value = ctypes.c_uint32(key), ctypes.create_string_buffer(octets)
    if _lib.bpf_map_lookup_elem(map_fd, ctypes.byref(number), value):
        raise OSError(ctypes.get_errno(), "bpf_map_lookup_elem")
    return value.raw


def map_of(process: int, octets: int) -> int:
    """A descriptor of the map that another process holds, whose elements have so many octets."""
    for entry in Path(f"/proc/{process}/fdinfo").iterdir():
        lines = entry.read_text(encoding="utf-8").splitlines()
        about = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        if "map_id" in about and int(about["value_size"]) == octets:
            return int(_lib.bpf_map_get_fd_by_id(ctypes.c_uint32(int(about["map_id"]))))
    raise OSError(errno.ENOENT, f"process {process} holds no map of {octets} octets")


def run_live(program_fd: int, frame: bytes, *, frames: int = MOST_FRAMES, batch: int = MOST_AT_ONCE) -> None:
    """Run an XDP program over that many live frames, each beginning as a copy of ``frame``, or until a signal comes.

    The kernel makes and takes down what it needs for that in each call, and waits for other cores then: 30 ms in which
    nothing is sent. A batch is as many buffers as it keeps for frames that come back, too.
    """
    run = _TestRun(
        sz=ctypes.sizeof(_TestRun),
        data_in=frame,
        data_size_in=len(frame),
        repeat=frames,
        flags=LIVE_FRAMES,
        batch_size=batch,
    )
    result = _lib.bpf_prog_test_run_opts(program_fd, ctypes.byref(run))
    if result and ctypes.get_errno() not in {0, errno.EINTR}:
        raise OSError(ctypes.get_errno(), f"BPF_PROG_TEST_RUN: {os.strerror(ctypes.get_errno())}")
