# SPDX-License-Identifier: BSD-3-Clause
"""The only file that touches libbpf: objects, maps, programs, ring buffers.

``libbpf.so.1`` is called through ctypes, so that nothing is compiled on the machine that
runs this. Calls give 0 or a negative errno (libbpf 1.0 and later); here they become a
``PlaneError`` that names the thing, what the kernel said and what to do.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterable, Iterator
from ctypes import c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from isthmus.errors import PlaneError, Unsupported

_LOG_OCTETS = 1 << 20
_ENOTSUPP = 524
_BATCH = 4096
_ARRAY, _MMAPABLE, _INNER_MAP = 2, 1 << 10, 1 << 12
"BPF_MAP_TYPE_ARRAY and flags of it (linux/bpf.h)."
_VERIFIED_AT = 216
"Offset of verified_insns in ``struct bpf_prog_info``."
_LOG_LINES = 12
"Last lines of the verifier's log that an error quotes."


class _OpenOptions(ctypes.Structure):
    """``struct bpf_object_open_opts``, as far as we set it."""

    _fields_ = (
        ("sz", c_size_t),
        ("object_name", c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", c_char_p),
        ("reserved", c_uint32),
        ("kconfig", c_char_p),
        ("btf_custom_path", c_char_p),
        ("kernel_log_buf", c_char_p),
        ("kernel_log_size", c_size_t),
        ("kernel_log_level", c_uint32),
    )


class _MapOptions(ctypes.Structure):
    """``struct bpf_map_create_opts``, as far as we set it."""

    _fields_ = (
        ("sz", c_size_t),
        ("btf", c_uint32 * 4),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
    )


class _MapInfo(ctypes.Structure):
    """``struct bpf_map_info``, as far as we read it."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
    )


class _TestRunOptions(ctypes.Structure):
    """``struct bpf_test_run_opts``."""

    _fields_ = (
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    )


_SAMPLE = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)

_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "bpf_object__open_mem": (c_void_p, (c_char_p, c_size_t, c_void_p)),
    "bpf_object__load": (c_int, (c_void_p,)),
    "bpf_object__close": (None, (c_void_p,)),
    "bpf_object__next_map": (c_void_p, (c_void_p, c_void_p)),
    "bpf_object__find_program_by_name": (c_void_p, (c_void_p, c_char_p)),
    "bpf_map__name": (c_char_p, (c_void_p,)),
    "bpf_map__fd": (c_int, (c_void_p,)),
    "bpf_map__is_internal": (ctypes.c_bool, (c_void_p,)),
    "bpf_map__reuse_fd": (c_int, (c_void_p, c_int)),
    "bpf_map__set_max_entries": (c_int, (c_void_p, c_uint32)),
    "bpf_program__fd": (c_int, (c_void_p,)),
    "bpf_map_create": (c_int, (c_uint32, c_char_p, c_uint32, c_uint32, c_uint32, c_void_p)),
    "bpf_map_get_fd_by_id": (c_int, (c_uint32,)),
    "bpf_obj_pin": (c_int, (c_int, c_char_p)),
    "bpf_obj_get": (c_int, (c_char_p,)),
    "bpf_obj_get_info_by_fd": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_update_elem": (c_int, (c_int, c_char_p, c_char_p, c_uint64)),
    "bpf_map_lookup_elem": (c_int, (c_int, c_char_p, c_void_p)),
    "bpf_map_delete_elem": (c_int, (c_int, c_char_p)),
    "bpf_map_get_next_key": (c_int, (c_int, c_char_p, c_void_p)),
    "bpf_map_update_batch": (c_int, (c_int, c_char_p, c_char_p, c_void_p, c_void_p)),
    "bpf_map_delete_batch": (c_int, (c_int, c_char_p, c_void_p, c_void_p)),
    "bpf_map_lookup_batch": (c_int, (c_int, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p)),
    "bpf_prog_test_run_opts": (c_int, (c_int, c_void_p)),
    "ring_buffer__new": (c_void_p, (c_int, _SAMPLE, c_void_p, c_void_p)),
    "ring_buffer__consume": (c_int, (c_void_p,)),
    "ring_buffer__epoll_fd": (c_int, (c_void_p,)),
    "ring_buffer__free": (None, (c_void_p,)),
    "libbpf_set_print": (c_void_p, (c_void_p,)),
    "libbpf_num_possible_cpus": (c_int, ()),
}


@cache
def _libbpf() -> Any:
    """The library, quiet and with its prototypes."""
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as missing:
        raise Unsupported(
            f"libbpf.so.1 ({missing})", remedy="install libbpf 1.0 or later (Debian: libbpf1)"
        ) from missing
    library.libbpf_set_print(None)
    return library


def _refused(what: str, number: int, words: str = "") -> PlaneError:
    """What went wrong, in the kernel's words and with a remedy."""
    number = abs(number)
    if number in (errno.EPERM, errno.EACCES) and not words:
        return Unsupported(f"{what}: {os.strerror(number)}", remedy="run as root, or with CAP_BPF and CAP_NET_ADMIN")
    if number in (errno.ENOSYS, _ENOTSUPP, errno.EOPNOTSUPP):
        return Unsupported(f"{what}: not in this kernel", remedy="use Linux 5.15 or later with CONFIG_BPF_SYSCALL")
    if words:
        return Unsupported(f"{what}: the kernel's verifier refused it:\n{words}\n", remedy="use Linux 5.15 or later")
    reason = "not supported" if number == _ENOTSUPP else os.strerror(number)
    if number in (errno.E2BIG, errno.ENOSPC):
        reason = "the map is full"
    return PlaneError(f"{what}: {reason}")


@dataclass(frozen=True, slots=True)
class TestRun:
    """What became of a packet in ``Program.test_run``."""

    action: int
    "What the program returned, TC_ACT_*."
    packet: bytes
    context: bytes
    "``struct __sk_buff`` afterwards."
    nanoseconds: int
    "On average, for one run."


class Map:
    """One map in the kernel."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        info = _MapInfo()
        size = c_uint32(ctypes.sizeof(info))
        status = _libbpf().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size))
        if status:
            raise _refused(f"map {name}", status)
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
        options = _MapOptions(sz=ctypes.sizeof(_MapOptions), map_flags=_MMAPABLE | _INNER_MAP)
        fd = int(_libbpf().bpf_map_create(_ARRAY, name.encode(), 4, octets, entries, ctypes.byref(options)))
        if fd < 0:
            raise _refused(f"map {name} of {entries} times {octets} octets", fd)
        return cls(name, fd)

    @classmethod
    def numbered(cls, name: str, number: int) -> Self:
        """Open a map by the number that an array of maps shows of it."""
        fd = int(_libbpf().bpf_map_get_fd_by_id(number))
        if fd < 0:
            raise _refused(f"map {name}", fd)
        return cls(name, fd)

    def pin(self, path: Path) -> None:
        """Make it outlive this process."""
        _pin(self.fd, path)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)

    def put(self, key: bytes, value: bytes) -> None:
        """Enter or replace."""
        status = _libbpf().bpf_map_update_elem(self.fd, key, value, 0)
        if status:
            raise _refused(f"map {self.name}, {self.entries} entries", status)

    def get(self, key: bytes, *, copies: int = 1) -> bytes | None:
        """Look up; of a per-processor map ``copies`` is the number of processors."""
        octets = self.value_octets if copies == 1 else (self.value_octets + 7 & -8) * copies
        value = ctypes.create_string_buffer(octets)
        status = _libbpf().bpf_map_lookup_elem(self.fd, key, value)
        if status == -errno.ENOENT:
            return None
        if status:
            raise _refused(f"map {self.name}", status)
        return value.raw

    def remove(self, key: bytes) -> None:
        """Remove; what is not there is no error."""
        status = _libbpf().bpf_map_delete_elem(self.fd, key)
        if status not in (0, -errno.ENOENT):
            raise _refused(f"map {self.name}", status)

    def put_all(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Enter many, a few thousand per system call where the kernel can."""
        rest = list(entries)
        while rest:
            part, rest = rest[:_BATCH], rest[_BATCH:]
            count = c_uint32(len(part))
            keys, values = b"".join(key for key, _ in part), b"".join(value for _, value in part)
            status = _libbpf().bpf_map_update_batch(self.fd, keys, values, ctypes.byref(count), None)
            if status:
                for key, value in part[count.value if status != -_ENOTSUPP else 0 :]:
                    self.put(key, value)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every entry, as it is while nobody else changes the map."""
        try:
            yield from self._items_by_batch()
        except PlaneError:
            yield from self._items_one_by_one()

    def _items_by_batch(self) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        most = min(self.entries, 1 << 16)
        token = ctypes.create_string_buffer(max(self.key_octets, 4))
        keys, values = (ctypes.create_string_buffer(octets * most) for octets in (self.key_octets, self.value_octets))
        first = True
        while True:
            count = c_uint32(most)
            status = _libbpf().bpf_map_lookup_batch(
                self.fd, None if first else token, token, keys, values, ctypes.byref(count), None
            )
            if status not in (0, -errno.ENOENT):
                raise _refused(f"map {self.name}", status)
            first = False
            k, v, n = keys.raw, values.raw, count.value
            wide, deep = self.key_octets, self.value_octets
            found += [(k[i * wide : (i + 1) * wide], v[i * deep : (i + 1) * deep]) for i in range(n)]
            if status:
                return found

    def _items_one_by_one(self) -> Iterator[tuple[bytes, bytes]]:
        key: bytes | None = None
        following = ctypes.create_string_buffer(self.key_octets)
        while _libbpf().bpf_map_get_next_key(self.fd, key, following) == 0:
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

    def pin(self, path: Path) -> None:
        """Make it outlive this process."""
        _pin(self.fd, path)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)

    @property
    def verified_instructions(self) -> int:
        """How many instructions the verifier looked at, of a million that it allows; 0 before Linux 5.16."""
        information = ctypes.create_string_buffer(_VERIFIED_AT + 4)
        octets = c_uint32(len(information))
        status = _libbpf().bpf_obj_get_info_by_fd(self.fd, information, ctypes.byref(octets))
        if status:
            raise _refused("information about the program", status)
        return c_uint32.from_buffer(information, _VERIFIED_AT).value

    def test_run(self, frame: bytes, context: bytes, *, repeat: int = 1) -> TestRun:
        """Run a TC program over a frame (BPF_PROG_TEST_RUN).

        Args:
            frame: With its link header.
            context: ``struct __sk_buff``, of which ifindex, cb and the like count.
            repeat: How often; the frame is not made anew in between.
        """
        out = ctypes.create_string_buffer(len(frame) + 4096)
        context_out = ctypes.create_string_buffer(len(context))
        options = _TestRunOptions(
            sz=ctypes.sizeof(_TestRunOptions),
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
        status = _libbpf().bpf_prog_test_run_opts(self.fd, ctypes.byref(options))
        if status:
            raise _refused(f"test run of {len(frame)} octets", status)
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
        options = _OpenOptions(
            sz=ctypes.sizeof(_OpenOptions),
            object_name=name.encode(),
            kernel_log_buf=ctypes.cast(self._log, c_char_p),
            kernel_log_size=_LOG_OCTETS,
        )
        self._handle = _libbpf().bpf_object__open_mem(octets, len(octets), ctypes.byref(options))
        if not self._handle:
            raise _refused(f"object {name}", ctypes.get_errno())
        self._maps: dict[str, int] = {}
        each = None
        while each := _libbpf().bpf_object__next_map(self._handle, each):
            if not _libbpf().bpf_map__is_internal(each):
                self._maps[_libbpf().bpf_map__name(each).decode()] = each

    @property
    def names(self) -> tuple[str, ...]:
        """The maps that the object declares."""
        return tuple(self._maps)

    def size(self, name: str, entries: int) -> None:
        """Say how many entries a map shall have."""
        status = _libbpf().bpf_map__set_max_entries(self._maps[name], entries)
        if status:
            raise _refused(f"size {entries} of map {name}", status)

    def reuse(self, existing: Map) -> None:
        """Let the object use a map that is there."""
        status = _libbpf().bpf_map__reuse_fd(self._maps[existing.name], existing.fd)
        if status:
            raise _refused(f"reuse of map {existing.name}", status)

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
            status = _libbpf().bpf_object__load(self._handle)
            if status:
                words = "\n".join(self._log.value.decode(errors="replace").strip().splitlines()[-_LOG_LINES:])
                raise _refused(f"object {self._name}", status, words)
            programs: dict[str, Program] = {}
            for name in names:
                found = _libbpf().bpf_object__find_program_by_name(self._handle, name.encode())
                if not found:
                    raise PlaneError(f"object {self._name} has no program {name}")
                programs[name] = Program(os.dup(_libbpf().bpf_program__fd(found)))
            maps = {name: Map(name, os.dup(_libbpf().bpf_map__fd(each))) for name, each in self._maps.items()}
            return programs, maps
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the object; what was loaded from it stays."""
        if self._handle:
            _libbpf().bpf_object__close(self._handle)
            self._handle = None


class RingBuffer:
    """What a program tells, in order."""

    def __init__(self, source: Map) -> None:
        self._records: list[bytes] = []
        self._callback = _SAMPLE(self._keep)
        self._handle = _libbpf().ring_buffer__new(source.fd, self._callback, None, None)
        if not self._handle:
            raise _refused(f"ring buffer {source.name}", ctypes.get_errno())

    def _keep(self, _context: int, data: int, octets: int) -> int:
        self._records.append(ctypes.string_at(data, octets))
        return 0

    def fileno(self) -> int:
        """Readable when there is something to ``drain``."""
        return int(_libbpf().ring_buffer__epoll_fd(self._handle))

    def drain(self) -> list[bytes]:
        """Every record since the last call."""
        _libbpf().ring_buffer__consume(self._handle)
        records, self._records = self._records, []
        return records

    def close(self) -> None:
        """Let go of it."""
        if self._handle:
            _libbpf().ring_buffer__free(self._handle)
            self._handle = None


@cache
def processors() -> int:
    """How many copies a per-processor map has of each value."""
    return int(_libbpf().libbpf_num_possible_cpus())


def _pin(fd: int, path: Path) -> None:
    """Pin under a path, atomically replacing what is there."""
    fresh = path.with_name(path.name + "_new")  # a BPF file system allows no dots
    fresh.unlink(missing_ok=True)
    status = _libbpf().bpf_obj_pin(fd, str(fresh).encode())
    if status:
        raise _refused(f"pin {path}", status)
    fresh.rename(path)


def _get(path: Path) -> int:
    fd = int(_libbpf().bpf_obj_get(str(path).encode()))
    if fd < 0:
        raise _refused(f"pinned {path}", fd)
    return fd
