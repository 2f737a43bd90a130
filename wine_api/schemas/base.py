"""What all schemas share: strict requests, and errors as pointers, codes and words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from marshmallow import RAISE, Schema, ValidationError

from wine_api.errors import Fault, InvalidRequest

MOST_FAULTS = 20
_WHOLE = "_schema"  # where marshmallow puts what is wrong with an object as a whole
_LONGEST_KEY = 64


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with a value, before it is known where the value stands."""

    code: str
    detail: str


def complain(code: str, detail: str) -> ValidationError:
    """Return the error that a field raises."""
    return ValidationError([Complaint(code, detail)])


class RequestSchema(Schema):
    """A request body; whatever is wrong with it becomes one `InvalidRequest`."""

    class Meta:
        """Fields that are not declared are refused."""

        unknown = RAISE

    error_messages: ClassVar[dict[str, Any]] = {  # type: ignore[misc]  # marshmallow passes them on as they are
        "type": [Complaint("wrong_type", "The body must be a JSON object.")],
        "unknown": [Complaint("unknown_field", "There is no such field.")],
    }

    def handle_error(self, error: ValidationError, data: Any, *, many: bool, **kwargs: Any) -> NoReturn:
        """Raise `InvalidRequest` for *error*."""
        faults = list(_faults(error.messages, ""))
        word = "problem" if len(faults) == 1 else "problems"
        raise InvalidRequest(f"The request has {len(faults)} {word}.", faults[:MOST_FAULTS]) from error


def _faults(messages: Any, pointer: str) -> Iterator[Fault]:
    """Walk marshmallow's nested messages and give each leaf its JSON pointer."""
    if isinstance(messages, Complaint):
        yield Fault(pointer, messages.code, messages.detail)
    elif isinstance(messages, dict):
        for key, nested in messages.items():
            yield from _faults(nested, pointer if key == _WHOLE and not pointer else f"{pointer}/{_escaped(key)}")
    elif isinstance(messages, list):
        for nested in messages:
            yield from _faults(nested, pointer)
    else:
        yield Fault(pointer, "invalid", str(messages))


def _escaped(key: object) -> str:
    """Return *key* as a part of a JSON pointer (RFC 6901, section 3).

    What a caller made up is cut: an error does not echo a payload. It can hold lone surrogates, which UTF-8 cannot.
    """
    text = str(key)[:_LONGEST_KEY].replace("~", "~0").replace("/", "~1")
    return text.encode("utf-8", "backslashreplace").decode()
