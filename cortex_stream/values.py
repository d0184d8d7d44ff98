"""Values that are made for every request: read-only for the type checker, cheap to make."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(*, eq: bool = True) -> Callable[[type[T]], type[T]]:
    """Return what makes a dataclass of a class, with slots, that nobody may change.

    The type checker refuses to set a field, as with `frozen=True`. At run time nothing does: making
    a frozen dataclass costs three times as much, and a request makes a dozen of them. Without `eq`
    each is equal to itself alone.
    """

    def decorate(cls: type[T]) -> type[T]:
        return dataclass(slots=True, eq=eq, unsafe_hash=eq)(cls)

    return decorate
