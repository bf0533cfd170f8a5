# SPDX-License-Identifier: BSD-3-Clause
"""Objects, maps, programs and ring buffers in the kernel, by way of libbpf.

What the kernel refuses becomes a ``PlaneError`` that names the thing, what the kernel said and what to do.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from collections.abc import Iterable, Iterator
from ctypes import c_char_p, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from isthmus.errors import PlaneError
from isthmus.plane.kernel.libbpf import (
    ENOTSUPP,
    SAMPLE,
    MapInfo,
    MapOptions,
    OpenOptions,
    TestRunOptions,
    libbpf,
    refused,
)

_LOG_OCTETS = 1 << 20
_BATCH = 4096
_RUN = 64
"Entries of an array that are looked at together."
_ARRAY, _MMAPABLE, _INNER_MAP = 2, 1 << 10, 1 << 12
"BPF_MAP_TYPE_ARRAY and flags of it (linux/bpf.h)."
_LOADED_AT, _NAME_AT, _NAME_OCTETS, _VERIFIED_AT = 40, 64, 16, 216
"Offsets of load_time, name and verified_insns in ``struct bpf_prog_info``, and how long a name is."
_LOG_LINES = 12
"Last lines of the verifier's log that an error quotes."


@dataclass(frozen=True, slots=True)
class TestRun:
    """What became of a packet in ``Program.test_run``."""

    action: int
    "What the program returned, TC_ACT_* or XDP_*."
    packet: bytes
    context: bytes
    "What was given as such, afterwards."
    nanoseconds: int
    "On average, for one run."


class Map:
    """One map in the kernel."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        info = MapInfo()
        size = c_uint32(ctypes.sizeof(info))
        status = libbpf().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size))
        if status:
            raise refused(f"map {name}", status)
        self.key_octets = int(info.key_size)
        self.value_octets = int(info.value_size)
        self.entries = int(info.max_entries)

    @classmethod
    def pinned(cls, path: Path) -> Self:
        """Open a map that is pinned."""
        return cls(path.name, _get(path))

    @classmethod
    def array(cls, name: str, *, octets: int, entries: int) -> Self:
        """Make an array that can be mapped, to be one of an array of maps."""
        options = MapOptions(sz=ctypes.sizeof(MapOptions), map_flags=_MMAPABLE | _INNER_MAP)
        fd = int(libbpf().bpf_map_create(_ARRAY, name.encode(), 4, octets, entries, ctypes.byref(options)))
        if fd < 0:
            raise refused(f"map {name} of {entries} times {octets} octets", fd)
        return cls(name, fd)

    @classmethod
    def numbered(cls, name: str, number: int) -> Self:
        """Open a map by the number that an array of maps shows of it."""
        fd = int(libbpf().bpf_map_get_fd_by_id(number))
        if fd < 0:
            raise refused(f"map {name}", fd)
        return cls(name, fd)

    def pin(self, path: Path) -> None:
        """Make it outlive this process."""
        _pin(self.fd, path)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)

    def put(self, key: bytes, value: bytes) -> None:
        """Enter or replace."""
        status = libbpf().bpf_map_update_elem(self.fd, key, value, 0)
        if status:
            raise refused(f"map {self.name}, {self.entries} entries", status)

    def get(self, key: bytes, *, copies: int = 1) -> bytes | None:
        """Look up; of a per-processor map ``copies`` is the number of processors."""
        octets = self.value_octets if copies == 1 else (self.value_octets + 7 & -8) * copies
        value = ctypes.create_string_buffer(octets)
        status = libbpf().bpf_map_lookup_elem(self.fd, key, value)
        if status == -errno.ENOENT:
            return None
        if status:
            raise refused(f"map {self.name}", status)
        return value.raw

    def totals(self) -> list[int]:
        """Of a per-processor array of numbers: each number summed up over the processors."""
        copies, count = processors(), c_uint32(self.entries)
        keys, values = (c_uint32 * self.entries)(), (c_uint64 * (copies * self.entries))()
        status = libbpf().bpf_map_lookup_batch(
            self.fd, None, ctypes.byref(c_uint32()), keys, values, ctypes.byref(count), None
        )
        if status in (0, -errno.ENOENT):
            return [sum(values[at * copies : (at + 1) * copies]) for at in range(self.entries)]
        found = (self.get(at.to_bytes(4, sys.byteorder), copies=copies) or b"" for at in range(self.entries))
        return [sum(memoryview(octets).cast("Q")) for octets in found]

    def remove(self, key: bytes) -> None:
        """Remove; what is not there is no error."""
        status = libbpf().bpf_map_delete_elem(self.fd, key)
        if status not in (0, -errno.ENOENT):
            raise refused(f"map {self.name}", status)

    def put_all(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Enter many, a few thousand per system call where the kernel can."""
        given = list(entries)
        for start in range(0, len(given), _BATCH):
            part = given[start : start + _BATCH]
            self.put_octets(b"".join(key for key, _ in part), b"".join(value for _, value in part))

    def put_octets(self, keys: bytes, values: bytes) -> None:
        """The same of keys and values that stand one after the other."""
        wide, deep = self.key_octets, self.value_octets
        for start in range(0, len(keys) // wide, _BATCH):
            part = keys[start * wide : (start + _BATCH) * wide]
            theirs = values[start * deep : (start + _BATCH) * deep]
            count = c_uint32(len(part) // wide)
            status = libbpf().bpf_map_update_batch(self.fd, part, theirs, ctypes.byref(count), None)
            if status:
                for at in range(count.value if status != -ENOTSUPP else 0, len(part) // wide):
                    self.put(part[at * wide : (at + 1) * wide], theirs[at * deep : (at + 1) * deep])

    def remove_all(self, keys: Iterable[bytes]) -> None:
        """Remove many, a few thousand per system call where the kernel can; what is not there is no error."""
        octets, wide = b"".join(keys), self.key_octets
        for start in range(0, len(octets), _BATCH * wide):
            part = octets[start : start + _BATCH * wide]
            count = c_uint32(len(part) // wide)
            if libbpf().bpf_map_delete_batch(self.fd, part, ctypes.byref(count), None):
                for at in range(0, len(part), wide):
                    self.remove(part[at : at + wide])

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every entry, as it is while nobody else changes the map."""
        try:
            yield from self._items_by_batch()
        except PlaneError:
            yield from self._items_one_by_one()

    def _items_by_batch(self) -> Iterator[tuple[bytes, bytes]]:
        wide, deep = self.key_octets, self.value_octets
        for keys, values in self.octets():
            for at in range(len(keys) // wide):
                yield keys[at * wide : (at + 1) * wide], values[at * deep : (at + 1) * deep]

    def used(self) -> Iterator[tuple[bytes, bytes]]:
        """Of an array, every entry that is not zero."""
        wide, deep = self.key_octets, self.value_octets
        run = _RUN * deep
        nothing = bytes(run)
        for keys, values in self.octets():
            for start in range(0, len(values), run):
                if values[start : start + run] == nothing:
                    continue
                for at in range(start // deep, min(start + run, len(values)) // deep):
                    if any(value := values[at * deep : (at + 1) * deep]):
                        yield keys[at * wide : (at + 1) * wide], value

    def octets(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values, many at a time, one after the other.

        Raises:
            PlaneError: the kernel cannot read such a map so.
        """
        most = min(self.entries, 1 << 16)
        token = ctypes.create_string_buffer(max(self.key_octets, 4))
        keys, values = (ctypes.create_string_buffer(octets * most) for octets in (self.key_octets, self.value_octets))
        first, status = True, 0
        while not status:
            count = c_uint32(most)
            status = libbpf().bpf_map_lookup_batch(
                self.fd, None if first else token, token, keys, values, ctypes.byref(count), None
            )
            if status not in (0, -errno.ENOENT):
                raise refused(f"map {self.name}", status)
            first = False
            n = count.value
            yield bytes(memoryview(keys)[: n * self.key_octets]), bytes(memoryview(values)[: n * self.value_octets])

    def _items_one_by_one(self) -> Iterator[tuple[bytes, bytes]]:
        key: bytes | None = None
        following = ctypes.create_string_buffer(self.key_octets)
        while libbpf().bpf_map_get_next_key(self.fd, key, following) == 0:
            key = following.raw
            value = self.get(key)
            if value is not None:
                yield key, value

    def mapped(self) -> mmap.mmap:
        """The octets of an array with BPF_F_MMAPABLE, shared with the kernel."""
        octets = (self.value_octets + 7 & -8) * self.entries
        return mmap.mmap(self.fd, (octets + mmap.PAGESIZE - 1) & -mmap.PAGESIZE, mmap.MAP_SHARED)


class Program:
    """One program in the kernel."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def pinned(cls, path: Path) -> Self:
        """Open a program that is pinned."""
        return cls(_get(path))

    @classmethod
    def numbered(cls, number: int) -> Self:
        """Open a program by the number that an interface shows of it."""
        fd = int(libbpf().bpf_prog_get_fd_by_id(number))
        if fd < 0:
            raise refused(f"program {number}", fd)
        return cls(fd)

    def pin(self, path: Path) -> None:
        """Make it outlive this process."""
        _pin(self.fd, path)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)

    @property
    def verified_instructions(self) -> int:
        """How many instructions the verifier looked at, of a million that it allows; 0 before Linux 5.16."""
        return c_uint32.from_buffer(self._information(), _VERIFIED_AT).value

    @property
    def loaded_at(self) -> int:
        """When the kernel began to look at it, CLOCK_BOOTTIME in nanoseconds."""
        return int(c_uint64.from_buffer(self._information(), _LOADED_AT).value)

    @property
    def name(self) -> str:
        """What it is called in its object."""
        return self._information()[_NAME_AT : _NAME_AT + _NAME_OCTETS].rstrip(b"\0").decode()

    def _information(self) -> bytearray:
        information = bytearray(_VERIFIED_AT + 4)
        octets = c_uint32(len(information))
        into = (ctypes.c_char * len(information)).from_buffer(information)
        status = libbpf().bpf_obj_get_info_by_fd(self.fd, into, ctypes.byref(octets))
        if status:
            raise refused("information about the program", status)
        return information

    def test_run(self, frame: bytes, context: bytes, *, repeat: int = 1) -> TestRun:
        """Run a program over a frame (BPF_PROG_TEST_RUN).

        Args:
            frame: With its link header.
            context: Of TC ``struct __sk_buff``, of which ifindex, cb and the like count; of XDP ``struct xdp_md``.
            repeat: How often; the frame is not made anew in between.
        """
        out = ctypes.create_string_buffer(len(frame) + 4096)
        context_out = ctypes.create_string_buffer(len(context))
        options = TestRunOptions(
            sz=ctypes.sizeof(TestRunOptions),
            data_in=ctypes.cast(c_char_p(frame), c_void_p),
            data_out=ctypes.cast(out, c_void_p),
            data_size_in=len(frame),
            data_size_out=len(out),
            ctx_in=ctypes.cast(c_char_p(context), c_void_p),
            ctx_out=ctypes.cast(context_out, c_void_p),
            ctx_size_in=len(context),
            ctx_size_out=len(context),
            repeat=repeat,
        )
        status = libbpf().bpf_prog_test_run_opts(self.fd, ctypes.byref(options))
        if status:
            raise refused(f"test run of {len(frame)} octets", status)
        packet = out.raw[: options.data_size_out]
        return TestRun(ctypes.c_int32(options.retval).value, packet, context_out.raw, options.duration)


class Object:
    """A compiled object on its way into the kernel: open, size, reuse, load."""

    def __init__(self, name: str, octets: bytes) -> None:
        """Open an object file.

        Raises:
            PlaneError: libbpf cannot read it.
        """
        self._name = name
        self._log = ctypes.create_string_buffer(_LOG_OCTETS)
        options = OpenOptions(
            sz=ctypes.sizeof(OpenOptions),
            object_name=name.encode(),
            kernel_log_buf=ctypes.cast(self._log, c_char_p),
            kernel_log_size=_LOG_OCTETS,
        )
        self._handle = libbpf().bpf_object__open_mem(octets, len(octets), ctypes.byref(options))
        if not self._handle:
            raise refused(f"object {name}", ctypes.get_errno())
        self._maps: dict[str, int] = {}
        each = None
        while each := libbpf().bpf_object__next_map(self._handle, each):
            if not libbpf().bpf_map__is_internal(each):
                self._maps[libbpf().bpf_map__name(each).decode()] = each

    @property
    def names(self) -> tuple[str, ...]:
        """The maps that the object declares."""
        return tuple(self._maps)

    def size(self, name: str, entries: int) -> None:
        """Say how many entries a map shall have."""
        status = libbpf().bpf_map__set_max_entries(self._maps[name], entries)
        if status:
            raise refused(f"size {entries} of map {name}", status)

    @property
    def programs(self) -> tuple[str, ...]:
        """The programs that the object has."""
        return tuple(libbpf().bpf_program__name(each).decode() for each in self._programs())

    def only(self, *names: str) -> None:
        """Leave out every program but some."""
        for each in self._programs():
            libbpf().bpf_program__set_autoload(each, libbpf().bpf_program__name(each).decode() in names)

    def _programs(self) -> Iterator[int]:
        each = None
        while each := libbpf().bpf_object__next_program(self._handle, each):
            yield each

    def reuse(self, existing: Map) -> None:
        """Let the object use a map that is there."""
        status = libbpf().bpf_map__reuse_fd(self._maps[existing.name], existing.fd)
        if status:
            raise refused(f"reuse of map {existing.name}", status)

    def load(self, program: str) -> tuple[Program, dict[str, Map]]:
        """Load everything, of an object with one program; as ``load_all``."""
        programs, maps = self.load_all(program)
        return programs[program], maps

    def load_all(self, *names: str) -> tuple[dict[str, Program], dict[str, Map]]:
        """Load everything; the object itself is closed.

        Args:
            names: The programs that are wanted.

        Raises:
            Unsupported: the verifier refused it, or the process may not.
        """
        try:
            status = libbpf().bpf_object__load(self._handle)
            if status:
                words = "\n".join(self._log.value.decode(errors="replace").strip().splitlines()[-_LOG_LINES:])
                raise refused(f"object {self._name}", status, words)
            programs: dict[str, Program] = {}
            for name in names:
                found = libbpf().bpf_object__find_program_by_name(self._handle, name.encode())
                if not found:
                    raise PlaneError(f"object {self._name} has no program {name}")
                programs[name] = Program(os.dup(libbpf().bpf_program__fd(found)))
            maps = {name: Map(name, os.dup(libbpf().bpf_map__fd(each))) for name, each in self._maps.items()}
            return programs, maps
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the object; what was loaded from it stays."""
        if self._handle:
            libbpf().bpf_object__close(self._handle)
            self._handle = None


class RingBuffer:
    """What a program tells, in order."""

    def __init__(self, source: Map) -> None:
        self._records: list[bytes] = []
        self._callback = SAMPLE(self._keep)
        self._handle = libbpf().ring_buffer__new(source.fd, self._callback, None, None)
        if not self._handle:
            raise refused(f"ring buffer {source.name}", ctypes.get_errno())

    def _keep(self, _context: int, data: int, octets: int) -> int:
        self._records.append(ctypes.string_at(data, octets))
        return 0

    def fileno(self) -> int:
        """Readable when there is something to ``drain``."""
        return int(libbpf().ring_buffer__epoll_fd(self._handle))

    def drain(self) -> list[bytes]:
        """Every record since the last call."""
        libbpf().ring_buffer__consume(self._handle)
        records, self._records = self._records, []
        return records

    def close(self) -> None:
        """Let go of it."""
        if self._handle:
            libbpf().ring_buffer__free(self._handle)
            self._handle = None


@cache
def processors() -> int:
    """How many copies a per-processor map has of each value."""
    return int(libbpf().libbpf_num_possible_cpus())


def _pin(fd: int, path: Path) -> None:
    """Pin under a path, atomically replacing what is there."""
    fresh = path.with_name(path.name + "_new")  # a BPF file system allows no dots
    fresh.unlink(missing_ok=True)
    status = libbpf().bpf_obj_pin(fd, str(fresh).encode())
    if status:
        raise refused(f"pin {path}", status)
    fresh.rename(path)


def _get(path: Path) -> int:
    fd = int(libbpf().bpf_obj_get(str(path).encode()))
    if fd < 0:
        raise refused(f"pinned {path}", fd)
    return fd
