# SPDX-License-Identifier: BSD-3-Clause
"""What a fuzz target is, and how it is driven.

A target is a module ``fuzz_NAME.py`` beside this one with a function ``check(octets)`` that raises
for whatever must never happen. It may have ``mutate(octets, rng)`` of its own, ``repair(octets)``
that makes checksums and lengths right again, so that mutations get past them, and ``RUNS``, how many
mutations are tried in the test suite. Its corpus is ``corpus/NAME``: real messages.

Alone, guided by coverage, for as long as wanted::

    PYTHONPATH=src:tests python tests/fuzz/target.py NAME -max_total_time=600

``make fuzz`` does that with every target; ``test_targets.py`` runs each shortly, without atheris.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parents[1] / "src"), str(HERE.parent)]

from fuzz.mutation import mutate as near  # noqa: E402  after the path is set

_RUNS = 3_000
_REPAIRED = 0.8
"""How much of what is mutated is repaired."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One parser, and what is known about its input."""

    name: str
    check: Callable[[bytes], object]
    mutate: Callable[[bytes, random.Random], bytes]
    corpus: tuple[bytes, ...]
    runs: int

    @classmethod
    def of(cls, name: str, module: ModuleType) -> Target:
        """The target that a module is."""
        corpus = tuple(path.read_bytes() for path in sorted((HERE / "corpus" / name).glob("*")))
        repair = getattr(module, "repair", None)
        own = getattr(module, "mutate", None)

        def change(octets: bytes, rng: random.Random) -> bytes:
            changed = own(octets, rng) if own else near(octets, rng, corpus)
            return repair(changed) if repair and rng.random() < _REPAIRED else changed

        return cls(name=name, check=module.check, mutate=change, corpus=corpus, runs=getattr(module, "RUNS", _RUNS))

    @classmethod
    def load(cls, name: str) -> Target:
        """A target by its name."""
        return cls.of(name, import_module(f"fuzz.fuzz_{name}"))


def names() -> list[str]:
    """Every target there is."""
    return sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py"))


def main(arguments: list[str]) -> None:
    """Run one target until told otherwise; ends with a trace and the octets at the first broken promise."""
    import atheris

    if not arguments or arguments[0] not in names():
        raise SystemExit(f"usage: target.py NAME [LIBFUZZER-OPTION...]; the names are {', '.join(names())}")
    name, *options = arguments
    with atheris.instrument_imports(include=["isthmus"]):
        target = Target.load(name)
    findings = HERE / "findings"
    grown = findings / f"corpus-{name}"
    grown.mkdir(parents=True, exist_ok=True)

    def change(octets: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        changed = atheris.Mutate(octets, max_size) if rng.random() < 0.3 else target.mutate(octets, rng)
        return bytes(changed[:max_size])

    def check(octets: bytes) -> None:
        target.check(octets)

    prefix = f"-artifact_prefix={findings}/{name}-"
    atheris.Setup(
        [sys.argv[0], prefix, "-max_len=4096", *options, str(grown), str(HERE / "corpus" / name)],
        check,
        custom_mutator=change,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
