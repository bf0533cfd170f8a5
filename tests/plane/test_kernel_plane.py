# SPDX-License-Identifier: BSD-3-Clause
"""What only the kernel plane has: limits, pins, memory, and errors that say what to do."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from isthmus.address import Address
from isthmus.border.binding import BindingKey, Owner
from isthmus.border.effect import Bind, Ending, Unbind
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border
from isthmus.border.verdict import Reason
from isthmus.errors import PlaneError, Unsupported
from isthmus.plane import Programmable
from isthmus.plane.kernel import KernelPlane, Sizes, ensure_bpffs, libbpf, loader, pinned
from isthmus.plane.reference.contact import EPOCH_SECONDS
from plane.fixture import NOW, Outcome, build, scene, stage
from plane.kernel_under_test import PINS, KernelUnderTest, whole_second

kernel = KernelUnderTest()
pytestmark = pytest.mark.root

INWARD = {"ipv4": "192.156.136.22 -> 149.112.240.55", "tcp": "80 -> 10000"}
OUTWARD = {"ipv4": "149.112.240.55 -> 192.156.136.22", "tcp": "10000 -> 80", "outer": {"ipv4": "10.0.0.4 -> 10.0.0.1"}}


@pytest.fixture(scope="module", autouse=True)
def _kernel_is_available() -> None:
    reason = kernel.available()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def figure() -> tuple[Border, tuple[Programmable, ...]]:
    return stage(scene("gateway"))


def with_plane(border: Border, work: Callable[[KernelPlane], None], *, sizes: Sizes | None = None) -> None:
    """A plane without pins, in the thread that has the interfaces."""
    bench = kernel.bench()

    def inside() -> None:
        bench.links.forget()
        made = KernelPlane(border, pin=None, boot_offset=NOW - whole_second(), links=bench.links, sizes=sizes)
        try:
            for realm in border.realms:
                made.attach(realm.number, f"realm {realm.number}", punt=f"realm {realm.number}")
            work(made)
        finally:
            made.close()

    bench.do(inside)


def one(plane: KernelPlane, border: Border, realm: str, spec: dict[str, object]) -> Outcome:
    number = next(each.number for each in border.realms if each.name == realm)
    return kernel.one(plane, border, number, build(dict(spec)))


def test_without_room_for_slices_every_port_is_found_all_the_same(
    figure: tuple[Border, tuple[Programmable, ...]],
) -> None:
    border, effects = figure

    def work(plane: KernelPlane) -> None:
        plane.apply(effects)
        assert one(plane, border, "public", INWARD)[:2] == ("forward", Reason.FORWARDED_INWARD)
        assert one(plane, border, "private", OUTWARD)[:2] == ("forward", Reason.FORWARDED_OUTWARD)

    with_plane(border, work, sizes=Sizes(slices=(1 << 16) // border.slice_size, endpoints=64))


def test_a_full_map_is_told_and_what_stands_goes_on(figure: tuple[Border, tuple[Programmable, ...]]) -> None:
    border, effects = figure
    binds = [each for each in effects if isinstance(each, Bind)]
    first = next(each for each in binds if each.binding.key.owner.address == Address.parse("10.0.0.4"))

    def work(plane: KernelPlane) -> None:
        plane.apply([*(each for each in effects if not isinstance(each, Bind)), first])
        other = Owner(first.binding.key.owner.realm, Address.parse("10.0.0.77"))
        selector = replace(first.binding.selectors[0], values=Ranges.of((20000, 20063)))
        more = replace(
            first,
            binding=replace(
                first.binding,
                key=BindingKey(other, 1),
                selectors=(selector,),
                crossing=replace(first.binding.crossing, remote=other.address),
            ),
        )
        with pytest.raises(PlaneError, match="endpoints"):
            plane.apply([more])
        assert one(plane, border, "private", OUTWARD)[:2] == ("forward", Reason.FORWARDED_OUTWARD)
        plane.apply([Unbind(key=first.binding.key, ending=Ending.FREED), more])

    with_plane(border, work, sizes=Sizes(slices=1 << 14, endpoints=2))


CONTACTED = {
    "owner": "private 10.0.0.4",
    "id": 77,
    "local": "149.112.240.55",
    "ports": "50001",
    "remote": {"admit": "contacted"},
    "tunnel": "10.0.0.1 -> 10.0.0.4",
}


def test_a_contact_is_forgotten_after_120_epochs() -> None:
    border, effects = stage(scene("gateway"), [CONTACTED])
    inward = {**INWARD, "tcp": "80 -> 50001"}
    outward = {**OUTWARD, "tcp": "50001 -> 80"}

    def work(plane: KernelPlane) -> None:
        plane.apply(effects)
        assert one(plane, border, "public", inward)[1] is Reason.NOT_CONTACTED
        assert one(plane, border, "private", outward)[1] is Reason.FORWARDED_OUTWARD
        with plane._maps["contacted"].mapped() as memory, memoryview(memory).cast("I") as words:
            (at,) = (number for number, word in enumerate(words) if word)
            noted = words[at]
            for age, admitted in ((0, True), (119, True), (120, True), (121, False), (4000, False)):
                # A second may lie between the words and the packet; epochs only turn every 64.
                now = whole_second() // EPOCH_SECONDS
                words[at] = noted & ~0xFFF | (now - age) & 0xFFF
                reason = one(plane, border, "public", inward)[1]
                assert (reason is Reason.FORWARDED_INWARD) == admitted, f"{age} epochs: {reason.name}"

    with_plane(border, work)


def test_old_contacts_are_swept_before_their_epoch_comes_round() -> None:
    border, effects = stage(scene("gateway"), [CONTACTED])
    outward = {**OUTWARD, "tcp": "50001 -> 80"}

    def work(plane: KernelPlane) -> None:
        plane.apply(effects)
        assert one(plane, border, "private", outward)[1] is Reason.FORWARDED_OUTWARD
        with plane._maps["contacted"].mapped() as memory, memoryview(memory).cast("I") as words:
            (at,) = (number for number, word in enumerate(words) if word)
            noted = words[at]
            plane.forget_old_contacts()
            assert words[at] == noted
            words[at] = noted & ~0xFFF | (noted - 130) & 0xFFF
            plane.forget_old_contacts()
            assert words[at] == 0

    with_plane(border, work)


def test_events_are_limited_and_the_counters_are_not(figure: tuple[Border, tuple[Programmable, ...]]) -> None:
    border, effects = figure

    def work(plane: KernelPlane) -> None:
        plane.apply(effects)
        spec = {**OUTWARD, "tcp": "9 -> 80"}
        started = whole_second()
        for _ in range(1500):
            assert one(plane, border, "private", spec)[1] is Reason.SOURCE_PORT_NOT_LEASED
        seconds = whole_second() - started + 1
        assert plane.counters()[Reason.SOURCE_PORT_NOT_LEASED] == 1500
        # One ring for all processors: more may be told, never more than 1000 a second on each.
        assert 0 < len(plane.events()) <= 1000 * seconds
        assert plane.events() == []

    with_plane(border, work)


def test_pins_of_another_layout_are_replaced_with_a_word(
    figure: tuple[Border, tuple[Programmable, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    border, effects = figure
    kernel.run(border, effects, [], NOW)
    other = replace(border, slice_size=16 if border.slice_size != 16 else 32)

    def inside() -> None:
        plane = kernel.open(other, NOW)
        try:
            assert plane.adopted is False
            assert "another layout or slice size" in plane.replaced
            plane.reconcile(effects)
            assert one(plane, border, "private", OUTWARD)[1] is Reason.FORWARDED_OUTWARD
        finally:
            plane.close()
        monkeypatch.setattr(pinned, "_fingerprint", lambda _octets: 1)
        plane = kernel.open(other, NOW)
        try:
            # The same layouts in another object: the maps stay, the program is exchanged.
            assert plane.adopted is True
            assert one(plane, border, "private", OUTWARD)[1] is Reason.FORWARDED_OUTWARD
            assert plane.counters()[Reason.FORWARDED_OUTWARD] == 2
        finally:
            plane.close()

    kernel.bench().do(inside)


def test_the_first_apply_after_adoption_is_a_reconcile(figure: tuple[Border, tuple[Programmable, ...]]) -> None:
    border, effects = figure
    kernel.run(border, effects, [], NOW)

    def inside() -> None:
        plane = kernel.open(border, NOW)
        try:
            assert plane.adopted
            assert one(plane, border, "private", OUTWARD)[1] is Reason.FORWARDED_OUTWARD
            plane.apply([each for each in effects if not isinstance(each, Bind)])
            assert one(plane, border, "private", OUTWARD)[1] is Reason.SOURCE_ADDRESS_NOT_LEASED
            plane.apply([each for each in effects if isinstance(each, Bind)])
            assert one(plane, border, "private", OUTWARD)[1] is Reason.FORWARDED_OUTWARD
        finally:
            plane.close()

    kernel.bench().do(inside)


def test_a_realm_without_an_interface_has_no_route(figure: tuple[Border, tuple[Programmable, ...]]) -> None:
    border, effects = figure

    def work(plane: KernelPlane) -> None:
        plane.apply(effects)
        public = next(each.number for each in border.realms if each.name == "public")
        nowhere = plane._codec.realm(public, 0, 0, 65535, ipae=False)
        plane._maps["realms"].put(plane._codec.realm_key(public), nowhere)
        assert one(plane, border, "private", OUTWARD)[:2] == ("drop", Reason.NO_ROUTE)
        dying = {"ipv4": INWARD["ipv4"], "tcp": INWARD["tcp"], "ttl": 1}
        assert one(plane, border, "public", dying)[:2] == ("drop", Reason.TTL_EXCEEDED), "there is no port to punt to"

    with_plane(border, work)


def test_the_program_is_well_below_what_the_verifier_bears(figure: tuple[Border, tuple[Programmable, ...]]) -> None:
    border, _ = figure
    with_plane(border, lambda plane: _bearable(plane._loaded.program.verified_instructions))


def _bearable(instructions: int) -> None:
    assert instructions == 0 or 10_000 < instructions < 500_000


def test_an_interface_that_is_not_there_is_told(figure: tuple[Border, tuple[Programmable, ...]]) -> None:
    border, _ = figure

    def work(plane: KernelPlane) -> None:
        monkey = plane._links
        monkey.find = lambda _name: None  # type: ignore[method-assign]
        try:
            with pytest.raises(PlaneError, match="interface nope0"):
                plane.attach(border.realms[0].number, "nope0")
        finally:
            del monkey.find  # type: ignore[method-assign]

    with_plane(border, work)


def test_destroy_removes_the_pins(figure: tuple[Border, tuple[Programmable, ...]]) -> None:
    border, effects = figure
    kernel.run(border, effects, [], NOW)

    def inside() -> None:
        plane = kernel.open(border, NOW)
        assert (PINS / "slices").exists()
        plane.destroy()
        assert not (PINS / "slices").exists()
        assert not (PINS / "program").exists()

    kernel.bench().do(inside)


# --- errors say what to do --------------------------------------------------------------------


def test_without_rights_the_remedy_is_named() -> None:
    script = (
        "from isthmus.plane.kernel import KernelPlane\n"
        "from isthmus.border.realm import Border, Realm\n"
        "try:\n"
        "    KernelPlane(Border(realms=(Realm(number=1, name='a'),)), pin=None, boot_offset=0.0)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    source = str(Path(__file__).parents[2] / "src")
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": "1"},
        user=65534,
        group=65534,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if ran.returncode:
        pytest.skip(f"nobody may not read the sources: {ran.stderr[-200:]}")
    assert ran.stdout.startswith("Unsupported")
    assert "CAP_BPF" in ran.stdout


def test_the_verifiers_words_are_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    octets = bytearray(pinned._object())
    # Every "call helper 1" (bpf_map_lookup_elem) becomes a call of one that does not exist.
    call = bytes.fromhex("8500000001000000")
    assert call in octets
    broken = bytes(octets).replace(call, bytes.fromhex("85000000ffff0000"))
    monkeypatch.setattr(pinned, "_object", lambda: broken)
    border, _ = stage(scene("gateway"))
    with pytest.raises(Unsupported, match=r"verifier refused it:(.|\n)*func"):
        KernelPlane(border, pin=None, boot_offset=0.0)


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(PlaneError, match="nonsense"):
        loader.Object("nonsense", b"not an object at all")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_words: object, **_more: object) -> None:
        raise OSError("libbpf.so.1: cannot open shared object file")

    libbpf.libbpf.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)
    try:
        with pytest.raises(Unsupported, match="libbpf1"):
            libbpf.libbpf()
    finally:
        monkeypatch.undo()
        libbpf.libbpf.cache_clear()


def test_a_place_for_pins_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unsupported, match="pins"):
        ensure_bpffs(tmp_path / "file" / "pins")
