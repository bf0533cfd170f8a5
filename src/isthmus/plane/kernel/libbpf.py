# SPDX-License-Identifier: BSD-3-Clause
"""``libbpf.so.1`` through ctypes: its structures, its functions, and what its refusals mean.

Nothing is compiled on the machine that runs this. Calls give 0 or a negative errno (libbpf 1.0 and later); ``refused``
makes a ``PlaneError`` of it that names the thing, what the kernel said and what to do.
"""

from __future__ import annotations

import ctypes
import errno
import os
from ctypes import c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

from isthmus.errors import PlaneError, Unsupported

ENOTSUPP = 524


class OpenOptions(ctypes.Structure):
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


class MapOptions(ctypes.Structure):
    """``struct bpf_map_create_opts``, as far as we set it."""

    _fields_ = (
        ("sz", c_size_t),
        ("btf", c_uint32 * 4),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
    )


class MapInfo(ctypes.Structure):
    """``struct bpf_map_info``, as far as we read it."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
    )


class TestRunOptions(ctypes.Structure):
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


SAMPLE = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)

_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "bpf_object__open_mem": (c_void_p, (c_char_p, c_size_t, c_void_p)),
    "bpf_object__load": (c_int, (c_void_p,)),
    "bpf_object__close": (None, (c_void_p,)),
    "bpf_object__next_map": (c_void_p, (c_void_p, c_void_p)),
    "bpf_object__find_program_by_name": (c_void_p, (c_void_p, c_char_p)),
    "bpf_object__next_program": (c_void_p, (c_void_p, c_void_p)),
    "bpf_program__name": (c_char_p, (c_void_p,)),
    "bpf_program__set_autoload": (c_int, (c_void_p, ctypes.c_bool)),
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
    "ring_buffer__new": (c_void_p, (c_int, SAMPLE, c_void_p, c_void_p)),
    "ring_buffer__consume": (c_int, (c_void_p,)),
    "ring_buffer__epoll_fd": (c_int, (c_void_p,)),
    "ring_buffer__free": (None, (c_void_p,)),
    "bpf_prog_get_fd_by_id": (c_int, (c_uint32,)),
    "bpf_xdp_attach": (c_int, (c_int, c_int, c_uint32, c_void_p)),
    "bpf_xdp_detach": (c_int, (c_int, c_uint32, c_void_p)),
    "bpf_xdp_query_id": (c_int, (c_int, c_int, c_void_p)),
    "libbpf_set_print": (c_void_p, (c_void_p,)),
    "libbpf_num_possible_cpus": (c_int, ()),
}


@cache
def libbpf() -> Any:
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


def refused(what: str, number: int, words: str = "") -> PlaneError:
    """What went wrong, in the kernel's words and with a remedy."""
    number = abs(number)
    if number in (errno.EPERM, errno.EACCES) and not words:
        return Unsupported(f"{what}: {os.strerror(number)}", remedy="run as root, or with CAP_BPF and CAP_NET_ADMIN")
    if number in (errno.ENOSYS, ENOTSUPP, errno.EOPNOTSUPP):
        return Unsupported(f"{what}: not in this kernel", remedy="use Linux 5.15 or later with CONFIG_BPF_SYSCALL")
    if words:
        return Unsupported(f"{what}: the kernel's verifier refused it:\n{words}\n", remedy="use Linux 5.15 or later")
    reason = "not supported" if number == ENOTSUPP else os.strerror(number)
    if number in (errno.E2BIG, errno.ENOSPC):
        reason = "the map is full"
    return PlaneError(f"{what}: {reason}")
