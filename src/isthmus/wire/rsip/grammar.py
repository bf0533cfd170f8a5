# SPDX-License-Identifier: BSD-3-Clause
"""The one routine that turns parameters into the fields of a message, and back (RFC 3103 §9).

A message is a dataclass and the order of its fields is its grammar: a field without a
default is a required parameter, in that order; ``X | None = None`` is optional and
``tuple[X, ...] = ()`` may be repeated, both in any order after the required ones. Two
required fields of one class (local and remote Address) are told apart by their order.

What does not fit is MISSING_PARAM, DUPLICATE_PARAM, EXTRA_PARAM or, where all parameters
are there and their order is wrong, BAD_MESSAGE.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from isthmus.address import Address, Prefix
from isthmus.wire.rsip.codes import AddressType, ErrorCode, QueryIndicator
from isthmus.wire.rsip.parameter import Indicator, Parameter, RsipAddress, UnknownParameter, number_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NETWORKS = (QueryIndicator.LOCAL_NETWORK, QueryIndicator.REMOTE_NETWORK)
_ADDRESSES = (QueryIndicator.LOCAL_ADDRESS, QueryIndicator.REMOTE_ADDRESS)


class GrammarError(Exception):
    """Parameters that do not make a message; never leaves this package.

    Args:
        code: The RSIP error.
        field: The parameter that is at fault or absent.
        index: Which parameter it is; their number if it is absent.
        problem: What is wrong.
    """

    def __init__(self, code: ErrorCode, field: str, *, index: int, problem: str) -> None:
        super().__init__(problem)
        self.code = code
        self.field = field
        self.index = index
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryTuple:
    """An address, or a network and its mask, with what it is (RFC 3103 §9.14.2, §9.15.2).

    A composite: on the wire it is an Indicator followed by one or two Addresses.
    """

    indicator: Indicator
    address: RsipAddress
    netmask: RsipAddress | None = None
    "Given with networks, and only with those."

    def __post_init__(self) -> None:
        """Refuse an indicator that contradicts the addresses."""
        if self.indicator.value not in _ADDRESSES + _NETWORKS:
            raise ValueError(f"indicator {self.indicator.value} is unknown")
        if not self.address.octets:
            raise ValueError("a query about any address")
        if self.netmask is None:
            if self.is_network:
                raise ValueError("a network without netmask")
            if self.address.addrtype == AddressType.IPV4_NETMASK:
                raise ValueError("a netmask in place of an address")
            return
        if not self.is_network:
            raise ValueError("an address with a netmask")
        # Silent: RFC 3103 §8.1 mentions IPv6 netmasks and gives them no type, so networks are IPv4 only.
        if self.address.addrtype != AddressType.IPV4 or self.netmask.addrtype != AddressType.IPV4_NETMASK:
            raise ValueError("a network must be an IPv4 address and an IPv4 netmask")
        if not self.netmask.octets:
            raise ValueError("a network with any netmask")

    @classmethod
    def of_address(cls, address: Address, indicator: QueryIndicator = QueryIndicator.ADDRESS) -> QueryTuple:
        """A tuple about one address."""
        return cls(indicator=Indicator(indicator), address=RsipAddress.of(address))

    @classmethod
    def of_network(cls, prefix: Prefix, indicator: QueryIndicator = QueryIndicator.NETWORK) -> QueryTuple:
        """A tuple about an IPv4 network."""
        mask = RsipAddress.netmask(prefix.length)
        return cls(indicator=Indicator(indicator), address=RsipAddress.of(prefix.address), netmask=mask)

    @property
    def is_network(self) -> bool:
        """Whether it is about a network."""
        return self.indicator.value in _NETWORKS

    @property
    def is_local(self) -> bool:
        """Whether a response says that it is local."""
        return self.indicator.value in (QueryIndicator.LOCAL_ADDRESS, QueryIndicator.LOCAL_NETWORK)

    @property
    def prefix(self) -> Prefix | None:
        """The address or network as a prefix; None for names, masks with gaps and bits beyond the mask."""
        if self.netmask is None:
            return None if self.address.address is None else Prefix.of(self.address.address)
        length = self.netmask.prefix_length
        try:
            return None if length is None else Prefix(Address.from_octets(self.address.octets), length)
        except ValueError:
            return None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its parameters in the order of the wire."""
        if self.netmask is None:
            return (self.indicator, self.address)
        return (self.indicator, self.address, self.netmask)

    @classmethod
    def read(cls, parameters: Sequence[Parameter], index: int) -> QueryTuple:
        """Read the tuple whose Indicator has that index.

        Raises:
            GrammarError: MISSING_PARAM or BAD_PARAM.
        """
        indicator = parameters[index]
        assert isinstance(indicator, Indicator)
        need = 2 if indicator.value in _NETWORKS else 1
        addresses = parameters[index + 1 : index + 1 + need]
        given = [parameter for parameter in addresses if isinstance(parameter, RsipAddress)]
        if len(given) < need or addresses[:need] != tuple(given):
            problem = f"{need} addresses must follow indicator {indicator.value}"
            raise GrammarError(ErrorCode.MISSING_PARAM, "RsipAddress", index=index + 1, problem=problem)
        try:
            return cls(indicator=indicator, address=given[0], netmask=given[1] if need == 2 else None)
        except ValueError as error:
            raise GrammarError(ErrorCode.BAD_PARAM, "QueryTuple", index=index, problem=str(error)) from error


def _key(item: Parameter | QueryTuple) -> int:
    """What ``order`` calls a parameter: its type, that of its Indicator, or 0 if it is unknown."""
    if isinstance(item, UnknownParameter):
        return 0
    return number_of(item.indicator if isinstance(item, QueryTuple) else item)


class Grammar:
    """What one class of messages is made of, read off its fields.

    Args:
        message: The dataclass.
        last: Fields that come after all others, wherever they are declared.
        skip: Fields that are no parameters.
    """

    __slots__ = ("_allowed", "_field_names", "_optional", "_required")

    def __init__(self, message: type, *, last: tuple[str, ...], skip: tuple[str, ...]) -> None:
        hints = get_type_hints(message)
        self._required: list[tuple[str, type[Parameter]]] = []
        self._optional: dict[type, tuple[str, bool]] = {}
        "Class of a parameter, to the field it goes to and whether it may be repeated."
        self._allowed: defaultdict[type, float] = defaultdict(float)
        declared = {field.name: field for field in fields(message) if field.name not in skip}
        # The class's own order: a field that it shares with its base would otherwise stand where the base has it.
        for field_name in (*(name for name in message.__annotations__ if name in declared), *last):
            field, hint = declared[field_name], hints[field_name]
            if field.default is MISSING:
                self._required.append((field.name, hint))
                self._allowed[hint] += 1
                continue
            repeated = get_origin(hint) is tuple
            kind = get_args(hint)[0]
            self._allowed[kind] += math.inf if repeated else 1
            if kind is QueryTuple:
                kind = Indicator
                self._allowed[Indicator] = self._allowed[RsipAddress] = math.inf
            self._optional[kind] = (field.name, repeated)
        self._field_names = [name for name, _ in self._optional.values()]

    def read(self, parameters: tuple[Parameter, ...]) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Sort parameters into fields.

        Returns:
            The fields by name, and the types of the optional parameters in the order they came in.

        Raises:
            GrammarError: they do not make a message of this class.
        """
        index = 0
        values: dict[str, Any] = {}
        for (name, kind), parameter in zip(self._required, parameters, strict=False):
            if type(parameter) is not kind:
                raise self._explain(parameters)
            values[name] = parameter
            index += 1
        if index < len(self._required):
            raise self._explain(parameters)
        order = []
        total = len(parameters)
        while index < total:
            parameter = parameters[index]
            name, repeated = self._optional.get(type(parameter), ("", False))
            if not name or (not repeated and name in values):
                raise self._explain(parameters, index)
            order.append(_key(parameter))
            if not repeated:
                values[name] = parameter
                index += 1
                continue
            item: Parameter | QueryTuple = parameter
            if type(parameter) is Indicator:
                item = QueryTuple.read(parameters, index)
            index += 1 if item is parameter else len(item.parameters)  # type: ignore[union-attr]
            values[name] = (*values.get(name, ()), item)
        return values, tuple(order)

    def write(self, message: object, order: Iterable[int]) -> tuple[Parameter, ...]:
        """Give the parameters of a message, the optional ones in ``order`` as far as it goes."""
        parameters: list[Parameter] = [getattr(message, name) for name, _ in self._required]
        if not order:
            for name in self._field_names:
                value = getattr(message, name)
                if type(value) is tuple:
                    for item in value:
                        parameters.extend(item.parameters if type(item) is QueryTuple else (item,))
                elif value is not None:
                    parameters.append(value)
            return tuple(parameters)
        waiting: dict[int, deque[Parameter | QueryTuple]] = {}
        for name in self._field_names:
            value = getattr(message, name)
            items = value if isinstance(value, tuple) else (value,)
            for item in items:
                if item is not None:
                    waiting.setdefault(_key(item), deque()).append(item)
        chosen: list[Parameter | QueryTuple] = []
        chosen.extend(waiting[key].popleft() for key in order if waiting.get(key))
        for rest in waiting.values():
            chosen.extend(rest)
        for item in chosen:
            parameters.extend(item.parameters if isinstance(item, QueryTuple) else (item,))
        return tuple(parameters)

    def _explain(self, parameters: tuple[Parameter, ...], index: int | None = None) -> GrammarError:
        """Find the first fault in the order duplicate, extra, missing, wrong order (RFC 3103 §14)."""
        counts: Counter[type] = Counter()
        for at, parameter in enumerate(parameters):
            kind = type(parameter)
            counts[kind] += 1
            if kind in self._allowed and counts[kind] > self._allowed[kind]:
                problem = f"occurs more than {self._allowed[kind]} times"
                return GrammarError(ErrorCode.DUPLICATE_PARAM, kind.__name__, index=at, problem=problem)
        for at, parameter in enumerate(parameters):
            if type(parameter) not in self._allowed:
                problem = "does not belong in this message"
                return GrammarError(ErrorCode.EXTRA_PARAM, type(parameter).__name__, index=at, problem=problem)
        for name, kind in self._required:
            counts[kind] -= 1
            if counts[kind] < 0:
                problem = f"required {kind.__name__} is absent"
                return GrammarError(ErrorCode.MISSING_PARAM, name, index=len(parameters), problem=problem)
        if index is not None:
            # Only the address of a query tuple may be there often and yet stand in a wrong place.
            field, problem = type(parameters[index]).__name__, "has no indicator in front of it"
            return GrammarError(ErrorCode.EXTRA_PARAM, field, index=index, problem=problem)
        return GrammarError(ErrorCode.BAD_MESSAGE, "parameters", index=0, problem="required parameters in wrong order")
