# SPDX-License-Identifier: BSD-3-Clause
import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from isthmus.border.effect import Peer, Send
from isthmus.value import quick


@dataclass(frozen=True, slots=True)
class Plain:
    first: int
    second: str = "two"
    third: tuple[int, ...] = field(default=(), kw_only=True)
    sum: int = field(init=False, compare=False)

    def __post_init__(self):
        if self.first < 0:
            raise ValueError("less than nothing")
        object.__setattr__(self, "sum", self.first + len(self.third))


Quick = quick(
    dataclass(frozen=True, slots=True)(
        type("Quick", (), {name: vars(Plain)[name] for name in ("__annotations__", "__post_init__", "__module__")}
             | {"second": "two", "third": field(default=(), kw_only=True), "sum": field(init=False, compare=False)})
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1,), {}), ((1, "zwei"), {}), ((), {"first": 1}), ((1,), {"third": (3, 4)}), ((1, "b"), {"third": (1,)})],
)
def test_is_made_as_any_dataclass_is(args, kwargs):
    plain, made = Plain(*args, **kwargs), Quick(*args, **kwargs)
    assert repr(made) == repr(plain).replace("Plain", "Quick")
    assert made == Quick(*args, **kwargs)
    assert hash(made) == hash(plain)
    assert type(made) is Quick


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, "b", (3,)), {}), ((1,), {"sum": 4}), ((1,), {"first": 1})])
def test_refuses_the_arguments_that_any_dataclass_refuses(args, kwargs):
    for kind in (Plain, Quick):
        with pytest.raises(TypeError):
            kind(*args, **kwargs)


def test_refuses_the_values_that_it_refused_before():
    with pytest.raises(ValueError, match="less than nothing"):
        Quick(-1)


def test_nothing_of_it_can_be_changed():
    made = Quick(1)
    with pytest.raises(FrozenInstanceError):
        made.first = 2
    with pytest.raises(FrozenInstanceError):
        del made.first
    with pytest.raises((AttributeError, TypeError)):
        made.fourth = 4


def test_is_copied_replaced_and_pickled():
    peer = Peer(1, (4, 5), 6)
    assert copy.deepcopy(peer) == copy.copy(peer) == pickle.loads(pickle.dumps(peer)) == peer
    assert replace(peer, port=7) == Peer(1, (4, 5), 7)


def test_says_what_it_is_made_of():
    assert list(inspect.signature(Send).parameters) == ["data", "peer"]


def test_classes_with_parents_or_factories_are_not_for_it():
    @dataclass(frozen=True, slots=True)
    class Factory:
        many: list[int] = field(default_factory=list)

    @dataclass(frozen=True, slots=True)
    class Child(Plain):
        pass

    for kind in (Factory, Child):
        with pytest.raises(TypeError):
            quick(kind)
