# SPDX-License-Identifier: BSD-3-Clause
"""The programs and their maps in the kernel: made anew, or taken over from where they are pinned.

What is pinned under a BPF file system outlives the process: filters keep their program,
and the program its maps. The map ``about`` says which layouts and which object they
belong to. Equal layouts are adopted (and the program exchanged if the object is another);
others are replaced: the new maps begin empty beside the old ones, which go on forwarding
until the new program is attached in the place of the old.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Self

from isthmus.errors import AbiMismatch, PlaneError, Unsupported
from isthmus.plane.kernel.btf import Types
from isthmus.plane.kernel.loader import Map, Object, Program
from isthmus.plane.kernel.maps import STRUCTS

OBJECTS = {"tc": "border_tc.bpf.o", "xdp": "border_xdp.bpf.o"}
"Where programs are attached, and the objects that have them."
_OBJECT, _XDP_OBJECT = OBJECTS.values()
_PROGRAMS = ("border", "ipae")
"RSIP's, and the one that comes before it where there are SIP realms."
_PINS = {"border": "program", "ipae": "program_ipae"}
_XDP_PINS = {"border": "program_xdp", "ipae": "program_ipae_xdp"}
_XDP_MAP = "programs_xdp"
"The same at XDP, which are loaded where they are wanted, and the one map that is theirs alone."
BRIEF_SLICES, BLOCK_SLICES = 15, 64
"As in abi.h; tests/test_abi.py compares them."
_MNT_DETACH = 2
_BPFFS_MAGIC = 0xCAFE4A11
_NUMBER_0 = bytes(4)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much the maps hold."""

    slices: int
    "Words: for each shared address as many as it has slices."
    endpoints: int = 1 << 17
    """Tunnels: about one for each host that holds something but plain leases. Routes and aliases of IPAE: one for each
    way and image."""
    owners: int = 1 << 20
    "Hosts that have registered; and as many addresses that they hold something of."
    ring: int = 1 << 16
    "Datagrams of IPAE that are remembered."


@dataclass(slots=True, kw_only=True)
class Loaded:
    """The programs and their maps."""

    types: Types
    programs: dict[str, Program]
    maps: dict[str, Map]
    pin: Path | None
    adopted: bool
    "Whether the maps were there already."
    replaced: str = ""
    "Why pinned maps that were there could not be adopted."
    at_xdp: dict[str, Program] = field(default_factory=dict)
    "Those of ``xdp``, once they are loaded."

    @property
    def program(self) -> Program:
        """RSIP's."""
        return self.programs["border"]

    def xdp(self, name: str) -> Program:
        """A program for XDP, over the same maps; it is loaded, or taken over from its pin, at the first call.

        Raises:
            Unsupported: the kernel has no such programs, or its verifier refuses them.
        """
        if name not in self.at_xdp:
            wanted = {each: pin for each, pin in _XDP_PINS.items() if each in (name, "border")}
            if self.pin is not None and all((self.pin / pin).exists() for pin in wanted.values()):
                self.at_xdp |= {each: Program.pinned(self.pin / pin) for each, pin in wanted.items()}
            else:
                self._load_xdp(wanted)
        return self.at_xdp[name]

    def _load_xdp(self, wanted: Mapping[str, str]) -> None:
        """Load programs, by the names of their pins."""
        opened = Object(_XDP_OBJECT, _xdp_object())
        shared = [each for each in opened.names if each in self.maps]
        for each in shared:
            opened.reuse(self.maps[each])
        self.at_xdp, maps = _load(opened, tuple(wanted))
        for each in shared:
            maps.pop(each).close()
        self.maps |= maps
        _join(self.at_xdp, self.maps[_XDP_MAP])
        if self.pin is not None:
            self.maps[_XDP_MAP].pin(self.pin / _XDP_MAP)
            for each, pin in wanted.items():
                self.at_xdp[each].pin(self.pin / pin)

    @classmethod
    def open(cls, pin: Path | None, sizes: Sizes, *, slice_size: int, ipae: bool = True) -> Self:
        """Load the program, or take over what is pinned.

        Args:
            pin: A directory for the pins, below a BPF file system; None: nothing outlives the process.
            sizes: For maps that are made.
            slice_size: Ports of a slice; maps for another are not adopted.
            ipae: Whether IPAE's program is wanted, with which the verifier has half as much to do again.

        Raises:
            Unsupported: the kernel, its verifier or our rights do not suffice.
        """
        octets = _object()
        wanted = _PROGRAMS if ipae else _PROGRAMS[:1]
        types = Types.of_object(octets)
        # 8 bits are left below the layout for the slice size, a power of two.
        about = types.record("about").pack(
            layout=types.layout(*STRUCTS) << 8 | slice_size.bit_length(),
            object=_fingerprint(octets + _xdp_object()),
        )
        if pin is not None:
            ensure_bpffs(pin)
        replaced = ""
        if pin is not None and (pin / "about").exists():
            try:
                return cls._adopt(pin, octets, types, about, sizes, wanted=wanted)
            except PlaneError as mismatch:
                replaced = f"{mismatch}; the maps pinned in {pin} are replaced by new ones"
                _log.warning("%s", replaced)
        made = cls._make(pin, octets, types, about, sizes, wanted=wanted)
        made.replaced = replaced
        return made

    @classmethod
    def _adopt(
        cls, pin: Path, octets: bytes, types: Types, about: bytes, sizes: Sizes, *, wanted: tuple[str, ...]
    ) -> Self:
        layout = types.record("about")
        with contextlib.closing(Map.pinned(pin / "about")) as kept:
            before = kept.get(_NUMBER_0) if kept.value_octets == layout.octets else None
        if before is None or layout.number(before, "layout") != layout.number(about, "layout"):
            raise AbiMismatch("the pinned maps have another layout or slice size than this version of isthmus")
        opened = Object(_OBJECT, octets)
        maps: dict[str, Map] = {}
        try:
            for name in opened.names:
                maps[name] = Map.pinned(pin / name)
            if maps["slices"].entries < sizes.slices or maps["endpoints"].entries < sizes.endpoints:
                raise AbiMismatch(f"the pinned maps hold {maps['slices'].entries} slices, {sizes.slices} are needed")
            if maps["owners"].entries < sizes.owners:
                raise AbiMismatch(f"the pinned maps hold {maps['owners'].entries} hosts, {sizes.owners} may come")
            if maps["ring"].entries < sizes.ring:
                raise AbiMismatch(f"the pinned ring has {maps['ring'].entries} slots, {sizes.ring} are needed")
            if before == about and all((pin / _PINS[each]).exists() for each in wanted):
                programs = {name: Program.pinned(pin / _PINS[name]) for name in wanted}
            else:
                for each in maps.values():
                    opened.reuse(each)
                programs = _load(opened, wanted)[0]
                _join(programs, maps["programs"])
                _pin(pin, programs)
                maps["about"].put(_NUMBER_0, about)
            return cls(types=types, programs=programs, maps=maps, pin=pin, adopted=True)
        except PlaneError:
            for each in maps.values():
                each.close()
            raise
        finally:
            opened.close()

    @classmethod
    def _make(
        cls, pin: Path | None, octets: bytes, types: Types, about: bytes, sizes: Sizes, *, wanted: tuple[str, ...]
    ) -> Self:
        opened = Object(_OBJECT, octets)
        opened.size("slices", sizes.slices)
        opened.size("briefs", -(-sizes.slices // BRIEF_SLICES))
        opened.size("blocks", -(-sizes.slices // BLOCK_SLICES))
        opened.size("endpoints", sizes.endpoints)
        opened.size("owners", sizes.owners)
        opened.size("holdings", sizes.owners)
        opened.size("ring", sizes.ring)
        programs, maps = _load(opened, wanted)
        _join(programs, maps["programs"])
        maps["about"].put(_NUMBER_0, about)
        if pin is not None:
            _pin(pin, programs)
            for name in sorted(maps, key=lambda name: name == "about"):
                maps[name].pin(pin / name)
        return cls(types=types, programs=programs, maps=maps, pin=pin, adopted=False)

    def close(self) -> None:
        """Let go; what is pinned or attached stays."""
        for program in (*self.programs.values(), *self.at_xdp.values()):
            program.close()
        for each in self.maps.values():
            each.close()

    def unpin(self) -> None:
        """Remove the pins; what is attached stays until its filter goes."""
        if self.pin is None:
            return
        for name in ("about", *_PINS.values(), *_XDP_PINS.values(), _XDP_MAP, *self.maps):
            (self.pin / name).unlink(missing_ok=True)
        release_bpffs(self.pin)


def _load(opened: Object, wanted: tuple[str, ...]) -> tuple[dict[str, Program], dict[str, Map]]:
    """Load the programs that are wanted, and all maps."""
    if len(wanted) == 1:
        opened.only(wanted[0])
    return opened.load_all(*wanted)


def _pin(pin: Path, programs: Mapping[str, Program]) -> None:
    """Pin new programs; those of another object go."""
    for name in (*_XDP_PINS.values(), *(_PINS[each] for each in _PINS if each not in programs)):
        (pin / name).unlink(missing_ok=True)
    for name, program in programs.items():
        program.pin(pin / _PINS[name])


def _join(programs: Mapping[str, Program], following: Map) -> None:
    """Let IPAE's program leave to RSIP's what is none of its own."""
    following.put(_NUMBER_0, programs["border"].fd.to_bytes(4, sys.byteorder))


def ensure_bpffs(path: Path) -> None:
    """Make a directory for pins; mount a BPF file system there if it is not below one.

    Raises:
        Unsupported: it cannot be mounted.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Unsupported(
            f"directory {path} for pins: {error.strerror}", remedy="run as root, or name another"
        ) from error
    if _is_bpffs(path):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", str(path).encode(), b"bpf", 0, b"mode=0700"):
        reason = os.strerror(ctypes.get_errno())
        raise Unsupported(f"BPF file system on {path}: {reason}", remedy=f"as root: mount -t bpf bpf {path}")


def release_bpffs(path: Path) -> None:
    """Undo ``ensure_bpffs`` where nothing is pinned any more: unmount what is mounted just there, remove it."""
    left = [each for each in path.iterdir() if each.suffix != ".debug"] if path.is_dir() else []
    if path.is_mount() and not left:
        ctypes.CDLL(None, use_errno=True).umount2(str(path).encode(), _MNT_DETACH)
    with contextlib.suppress(OSError):
        path.rmdir()


def _is_bpffs(path: Path) -> bool:
    """Whether a path lies on a BPF file system (statfs(2); ``f_type`` is the first word)."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(256)
    if libc.statfs(str(path).encode(), buffer):
        return False
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF == _BPFFS_MAGIC


def _object() -> bytes:
    return read_object(_OBJECT)


def _xdp_object() -> bytes:
    return read_object(_XDP_OBJECT)


def read_object(name: str) -> bytes:
    """The octets of an object that the package carries.

    Raises:
        Unsupported: it has not been compiled.
    """
    try:
        return resources.files("isthmus.plane.kernel").joinpath("objects", name).read_bytes()
    except OSError as error:
        raise Unsupported(f"{name} is not built", remedy="run make -C bpf (clang is needed)") from error


def _fingerprint(octets: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(octets, digest_size=8).digest(), "big")
