"""The schemas are Kafka's: compared field by field with the message definitions that kafka-python ships.

kafka-python 3 carries the message definitions (JSON) of Apache Kafka and encodes from them: an oracle that
shares nothing with our schemas. It does not know the telemetry messages (KIP-714).
"""

from __future__ import annotations

import importlib
import importlib.resources
import json
import pkgutil
import re
import warnings
from typing import Any

import pytest

from kprod.protocol import APIS, Api, encode_response
from kprod.protocol.schema import Array, Field, Struct, _contains

with warnings.catch_warnings():
    # kafka-python reads its definitions with a deprecated function.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka.protocol
    from kafka.protocol.api_message import ApiMessage

    for _module in pkgutil.walk_packages(kafka.protocol.__path__, "kafka.protocol."):
        if ".old" not in _module.name and "generate_stubs" not in _module.name:
            importlib.import_module(_module.name)

KNOWN_THERE = [api for api in APIS.values() if not api.name.endswith(("Telemetry", "TelemetrySubscriptions"))]
ALL = [
    (api, direction, version)
    for api in KNOWN_THERE
    for version in range(api.versions[0], api.versions[1] + 1)
    for direction in ("request", "response")
]


def _name(case: tuple[Api, str, int]) -> str:
    return f"{case[0].name}-{case[1]}-v{case[2]}"


def _definition(api: Api, direction: str) -> dict[str, Any]:
    resources = importlib.resources.files("kafka.protocol.schemas.resources")
    text = resources.joinpath(f"{api.name}{direction.capitalize()}.json").read_text()
    definition: dict[str, Any] = json.loads(re.sub(r"(?m)^\s*//.*$", "", text))
    common = {struct["name"]: struct["fields"] for struct in definition.get("commonStructs", [])}
    _put_in_common_structs(definition["fields"], common)
    return definition


def _put_in_common_structs(fields: list[dict[str, Any]], common: dict[str, Any]) -> None:
    for f in fields:
        name = f["type"].removeprefix("[]")
        if name in common:
            f["fields"] = common[name]
        _put_in_common_structs(f.get("fields", []), common)


def _json_layout(fields: list[dict[str, Any]], version: int) -> list[Any]:
    layout: list[Any] = []
    for f in fields:
        if not _contains(f["versions"], version):
            continue
        tag = f.get("tag")
        kind = f["type"]
        nullable = _contains(f.get("nullableVersions"), version)
        inner = _json_layout(f["fields"], version) if f.get("fields") else None
        layout.append((kind if inner is None else re.sub(r"\w+", "struct", kind), nullable, tag, inner))
    return layout


def _our_layout(fields: Any, version: int) -> list[Any]:
    layout: list[Any] = []
    for f in fields:
        if not _contains(f.versions, version):
            continue
        of = f.type.of if isinstance(f.type, Array) else f.type
        inner = _our_layout(of.fields, version) if isinstance(of, Struct) else None
        kind = ("[]" if isinstance(f.type, Array) else "") + ("struct" if inner is not None else str(of))
        layout.append((kind, _contains(f.nullable, version), f.tag, inner))
    return layout


@pytest.mark.parametrize("case", ALL, ids=_name)
def test_wire_layout_is_kafkas(case: tuple[Api, str, int]) -> None:
    api, direction, version = case
    definition = _definition(api, direction)
    assert definition["apiKey"] == api.key
    flexible = definition["flexibleVersions"]
    assert api.is_flexible(version) is (flexible != "none" and _contains(flexible, version))
    fields = api.request if direction == "request" else api.response
    assert _our_layout(fields, version) == _json_layout(definition["fields"], version)


def test_names_are_kafkas_in_snake_case() -> None:
    def names(fields: list[dict[str, Any]]) -> set[str]:
        found: set[str] = set()
        for f in fields:
            name = re.sub(r"^V3AndBelow|V3AndBelow$", "", f["name"])
            name = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()
            found |= {name} | names(f.get("fields") or [])
        return found

    def ours(fields: Any) -> set[str]:
        found: set[str] = set()
        for f in fields:
            of = f.type.of if isinstance(f.type, Array) else f.type
            found |= {f.name} | (ours(of.fields) if isinstance(of, Struct) else set())
        return found

    for api in KNOWN_THERE:
        assert ours(api.request) <= names(_definition(api, "request")["fields"]), api.name
        assert ours(api.response) <= names(_definition(api, "response")["fields"]), api.name


def _sample(kind: Any, version: int) -> Any:
    if isinstance(kind, Array):
        return [_sample(kind.of, version), _sample(kind.of, version)]
    if isinstance(kind, Struct):
        return _sample_body(kind.fields, version)
    samples = {
        "int8": -3,
        "int16": -300,
        "int32": -70_000,
        "int64": 1 << 40,
        "bool": True,
        "string": "straße",
        "bytes": b"\x00\xff bytes",
        "records": b"not really records",
        "uuid": bytes(range(16)),
    }
    return samples[kind]


def _sample_body(fields: Any, version: int) -> dict[str, Any]:
    return {f.name: _sample(f.type, version) for f in fields if _contains(f.versions, version)}


def _message_class(name: str) -> Any:
    pending: list[Any] = [ApiMessage]
    while pending:
        cls = pending.pop()
        if cls.__name__ == name:
            return cls
        pending += cls.__subclasses__()
    raise AssertionError(f"kafka-python has no {name}")


@pytest.mark.parametrize("case", [c for c in ALL if c[1] == "response"], ids=_name)
def test_kafka_python_reads_and_rewrites_the_same_bytes(case: tuple[Api, str, int]) -> None:
    api, _, version = case
    body = _sample_body(api.response, version)
    if api.name == "ApiVersions":
        body["error_code"] = 0  # kafka-python reads an error as a version 0 body
    frame = encode_response(api, version, 5, body)
    theirs = _message_class(f"{api.name}Response")
    header_size = 4 + (api.is_flexible(version) and api.name != "ApiVersions")
    message = theirs.decode(frame[4 + header_size :], version=version)
    message._header = None  # encode() asks for it, decode() does not set it
    assert message.encode(version=version) == frame[4 + header_size :]


def test_fields_are_declared_once() -> None:
    def check(fields: Any) -> None:
        names = [f.name for f in fields]
        assert len(names) == len(set(names))
        tags = [f.tag for f in fields if f.tag is not None]
        assert len(tags) == len(set(tags))
        for f in fields:
            assert isinstance(f, Field)
            of = f.type.of if isinstance(f.type, Array) else f.type
            if isinstance(of, Struct):
                check(of.fields)

    for api in APIS.values():
        check(api.request)
        check(api.response)
