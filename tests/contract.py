"""The OpenAPI document as a judge of what the service really answers."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from flask.testing import FlaskClient
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from werkzeug.test import TestResponse

_DOCUMENT = "urn:document"


class Contract:
    """What the document promises. It is read to the letter: a field that it does not name is a fault."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = deepcopy(document)
        for schema in self.schemas.values():
            _close(schema)
        self._registry = Registry().with_resource(_DOCUMENT, DRAFT202012.create_resource(self.document))

    @classmethod
    def of(cls, client: FlaskClient) -> Contract:
        return cls(client.get("/openapi.json").json)

    @property
    def schemas(self) -> dict[str, Any]:
        return self.document["components"]["schemas"]

    def operations(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return each operation by its method and path."""
        return {
            (method.upper(), path): operation
            for path, item in self.document["paths"].items()
            for method, operation in item.items()
        }

    def resolve(self, part: dict[str, Any]) -> dict[str, Any]:
        """Return what *part* refers to, or *part* itself."""
        if "$ref" not in part:
            return part
        *_, kind, name = part["$ref"].split("/")
        return self.document["components"][kind][name]

    def faults(self, schema: dict[str, Any], value: Any) -> list[str]:
        """Say what is wrong with *value*, which should be as *schema* says."""
        absolute = {"$ref": _DOCUMENT + schema["$ref"]} if "$ref" in schema else schema
        validator = Draft202012Validator(absolute, registry=self._registry, format_checker=FormatChecker())
        return [f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(value)]

    def allows(self, schema: str, value: Any) -> bool:
        """Whether *value* is as the schema of that name says."""
        return not self.faults({"$ref": f"#/components/schemas/{schema}"}, value)

    def check(self, response: TestResponse) -> None:
        """Raise unless the document describes exactly such a *response* to its request."""
        operation = self.operations()[response.request.method, response.request.path]
        promised = operation["responses"][str(response.status_code)]
        missing = set(promised.get("headers", {})) - set(response.headers.keys())
        assert not missing, f"headers are missing: {missing}"
        content = promised["content"][response.mimetype]
        faults = self.faults(content["schema"], response.json) if response.mimetype.endswith("json") else []
        assert not faults, f"{response.text} is not as the document says: {faults}"


def _close(schema: Any) -> None:
    """Refuse what *schema* and those within do not name."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            _close(part)
    elif isinstance(schema, list):
        for part in schema:
            _close(part)
