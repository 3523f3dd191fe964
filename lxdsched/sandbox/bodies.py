"""Reading request bodies as Go's decoder reads them, with its complaints.

LXD decodes a body into a struct: unknown fields are ignored, absent and null ones are zero, and a value of another
type is refused with a sentence that names the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from lxdsched.sandbox.answers import LXDError


def is_text(value: object) -> bool:
    """Tell a string."""
    return isinstance(value, str)


def is_flag(value: object) -> bool:
    """Tell a boolean."""
    return isinstance(value, bool)


def is_integer(value: object) -> bool:
    """Tell a whole number that is no boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_texts(value: object) -> bool:
    """Tell a list of strings."""
    return isinstance(value, list) and all(map(is_text, value))


def is_text_map(value: object) -> bool:
    """Tell an object of strings."""
    return isinstance(value, dict) and all(map(is_text, value.values()))


def is_devices(value: object) -> bool:
    """Tell an object of objects of strings."""
    return isinstance(value, dict) and all(map(is_text_map, value.values()))


def is_object(value: object) -> bool:
    """Tell an object of anything."""
    return isinstance(value, dict)


@dataclass(frozen=True)
class Shape:
    """A Go struct: its name and the fields the sandbox reads, each with its test."""

    name: str
    fields: Mapping[str, Callable[[object], bool]]
    type_name: str = ""

    def read(self, body: bytes) -> Body:
        """Decode a body; raises a 400 LXDError in Go's words."""
        if not body.strip():
            raise LXDError(400, "EOF")
        try:
            value: object = msgspec.json.decode(body)
        except msgspec.DecodeError as problem:
            raise LXDError(400, f"invalid JSON: {problem}") from None
        if value is None:
            return Body({})
        if not isinstance(value, dict):
            go_type = self.type_name or f"api.{self.name}"
            raise LXDError(400, f"json: cannot unmarshal {_kind(value)} into Go value of type {go_type}")
        for field, test in self.fields.items():
            item = value.get(field)
            if item is not None and not test(item):
                wrong, wanted = _mismatch(item, test)
                raise LXDError(
                    400,
                    f"json: cannot unmarshal {wrong} into Go struct field {self.name}.{field} of type {wanted}",
                )
        return Body(value)


class Body:
    """A decoded body whose fields have the types its shape promised."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = fields

    def __contains__(self, field: str) -> bool:
        return field in self._fields

    def given(self, field: str) -> bool:
        """Whether the field is there and not null."""
        return self._fields.get(field) is not None

    def text(self, field: str) -> str:
        """A string, empty when absent."""
        value = self._fields.get(field)
        return value if isinstance(value, str) else ""

    def flag(self, field: str) -> bool:
        """A boolean, False when absent."""
        return self._fields.get(field) is True

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of strings, empty when absent."""
        value = self._fields.get(field)
        return tuple(map(str, value)) if isinstance(value, list) else ()

    def text_map(self, field: str) -> dict[str, str]:
        """An object of strings, empty when absent."""
        value = self._fields.get(field)
        return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}

    def devices(self, field: str) -> dict[str, dict[str, str]]:
        """An object of objects of strings, empty when absent."""
        value = self._fields.get(field)
        return {str(k): dict(v) for k, v in value.items()} if isinstance(value, dict) else {}

    def object(self, field: str) -> dict[str, object]:
        """An object of anything, empty when absent."""
        value = self._fields.get(field)
        return dict(value) if isinstance(value, dict) else {}


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, dict):
        return "object"
    return "array" if isinstance(value, list) else "number"


def _mismatch(value: object, test: Callable[[object], bool]) -> tuple[str, str]:
    """What was found and what Go wanted: of a container the first wrong item, else the container itself."""
    names: dict[Callable[[object], bool], str] = {
        is_text: "string",
        is_flag: "bool",
        is_integer: "int",
        is_texts: "[]string",
        is_text_map: "map[string]string",
        is_devices: "map[string]map[string]string",
        is_object: "map[string]interface {}",
    }
    items = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    if (test is is_texts and isinstance(value, list)) or (test is is_text_map and isinstance(value, dict)):
        return next(_kind(item) for item in items if not is_text(item)), "string"
    if test is is_devices and isinstance(value, dict):
        odd = next(item for item in items if not is_text_map(item))
        return _mismatch(odd, is_text_map)
    return _kind(value), names[test]
