"""How input is refused: every fault with its place, its rule and its type, and never its value."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import voluptuous as vol

V = TypeVar("V", bound=Callable[[Any], Any])


# The type of a fault whose place is no name of ours.
UNKNOWN = "extra_forbidden"


class Fault(NamedTuple):
    """One thing wrong with the input. It names the place and the rule, never the value."""

    loc: tuple[str | int, ...]
    msg: str
    type: str

    def as_json(self) -> dict[str, Any]:
        return {"loc": list(self.loc), "msg": self.msg, "type": self.type}

    def for_log(self) -> dict[str, str]:
        """Return the place and the type; a name that is none of ours is its sender's own word."""
        names = self.loc[:-1] if self.type == UNKNOWN else self.loc
        return {"loc": ".".join(map(str, names)), "type": self.type}


class Invalid(Exception):
    """The input breaks a rule; `faults` has every broken one."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(fault.msg for fault in faults))
        self.faults = faults


class Broken(vol.Invalid):
    """A voluptuous error that knows its machine-readable type."""

    def __init__(self, msg: str, type: str) -> None:
        super().__init__(msg)
        self.type = type


def described(**json_schema: Any) -> Callable[[V], V]:
    """Say for the API page what a validator accepts, as JSON Schema."""

    def describe(validator: V) -> V:
        validator.json_schema = json_schema  # type: ignore[attr-defined]
        return validator

    return describe


def validate(schema: vol.Schema, data: dict[str, Any], where: str) -> dict[str, Any]:
    """Return `data` as the schema makes it; raise Invalid with every fault, each in `where`."""
    try:
        return schema(data)  # type: ignore[no-any-return]
    except vol.MultipleInvalid as error:
        # Missing keys come in the order of a set.
        faults = sorted(_fault(each, where) for each in error.errors)
        _forget(error)
    # Not `from` the error, nor while it is handled: it leads to the data, and so to the body.
    raise Invalid(*faults)


def _forget(error: vol.MultipleInvalid) -> None:
    """Break the cycles through the errors' tracebacks.

    Voluptuous keeps each in a local of a frame that its own traceback holds: the data would wait
    for the collector.
    """
    for each in (error, *error.errors):
        each.__traceback__ = each.__context__ = None


def _fault(error: vol.Invalid, where: str) -> Fault:
    loc = (where, *(str(key) for key in error.path))
    if isinstance(error, Broken):
        return Fault(loc, error.msg, error.type)
    return Fault(loc, "is required", "missing")
