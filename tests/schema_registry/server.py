"""A Schema Registry inside the test process, for what no real one does on command.

It keeps schemas, gives ids and GUIDs, answers with the error codes of Confluent's API, counts requests, and
fails or demands credentials when told to. It checks no compatibility, and of schemas only Avro
without references. ``test_real_registry.py`` runs the same
serializers against a real one.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import fastavro


class RegistryServer:
    """Listens on 127.0.0.1 until :meth:`close`."""

    def __init__(self, *, guids: bool = True) -> None:
        self.schemas: list[dict[str, Any]] = []  # index + 1 is the id
        self.versions: dict[str, list[int]] = {}
        self.requests: Counter[str] = Counter()
        self.fail_next: list[tuple[int, dict[str, Any] | str]] = []
        self.authorization: str | None = None
        self.seen_authorization: list[str | None] = []
        self.guids = guids
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _do(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                with owner._lock:
                    status, answer = owner._answer(
                        self.command, self.path, body, self.headers.get("Authorization")
                    )
                payload = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = _do

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, method: str, path: str, body: Any, authorization: str | None) -> tuple[int, Any]:
        parts = urlsplit(path)
        self.requests[f"{method} {parts.path}"] += 1
        self.seen_authorization.append(authorization)
        if self.fail_next:
            return self.fail_next.pop(0)
        if self.authorization is not None and authorization != self.authorization:
            return 401, {"error_code": 401, "message": "Unauthorized"}
        if body is not None:  # what a client need not say
            defaults: tuple[Any, ...] = ("AVRO", [], None)
            body = {name: value for name, value in body.items() if value not in defaults}
        match [unquote(part) for part in parts.path.split("/")[1:]]:
            case ["subjects"]:
                return 200, sorted(self.versions)
            case ["subjects", subject, "versions"] if method == "POST":
                return self._register(subject, body)
            case ["subjects", subject] if method == "POST":
                return self._lookup(subject, body)
            case ["subjects", subject, "versions", version]:
                return self._version(subject, version)
            case ["schemas", "ids", number]:
                return self._schema(int(number) - 1)
            case ["schemas", "guids", guid]:
                return self._schema([self._guid(s) for s in self.schemas].index(guid))
        return 404, {"error_code": 404, "message": f"no such resource: {path}"}

    def _guid(self, schema: dict[str, Any]) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(schema, sort_keys=True)))

    def _schema(self, index: int) -> tuple[int, Any]:
        if not 0 <= index < len(self.schemas):
            return 404, {"error_code": 40403, "message": "Schema not found"}
        return 200, {**self.schemas[index], "id": index + 1, "guid": self._guid(self.schemas[index])}

    def _registered(self, subject: str, number: int) -> dict[str, Any]:
        schema = self.schemas[number - 1]
        version = self.versions[subject].index(number) + 1
        answer = {**schema, "id": number, "subject": subject, "version": version}
        return {**answer, "guid": self._guid(schema)} if self.guids else answer

    def _register(self, subject: str, body: dict[str, Any]) -> tuple[int, Any]:
        for reference in body.get("references", ()):
            if len(self.versions.get(reference["subject"], ())) < reference["version"]:
                return 422, {"error_code": 42201, "message": f"unknown reference {reference}"}
        if "schemaType" not in body and not body.get("references"):
            try:
                fastavro.parse_schema(json.loads(body["schema"]))
            except (fastavro.schema.SchemaParseException, fastavro.schema.UnknownType) as error:
                return 422, {"error_code": 42201, "message": f"Invalid schema: {error}"}
        if body not in self.schemas:
            self.schemas.append(body)
        number = self.schemas.index(body) + 1
        versions = self.versions.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        answer = self._registered(subject, number)
        del answer["version"]  # older registries do not tell it here
        return 200, answer

    def _lookup(self, subject: str, body: dict[str, Any]) -> tuple[int, Any]:
        if subject not in self.versions:
            return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
        for number in self.versions[subject]:
            if self.schemas[number - 1] == body:
                return 200, self._registered(subject, number)
        return 404, {"error_code": 40403, "message": "Schema not found"}

    def _version(self, subject: str, version: str) -> tuple[int, Any]:
        if subject not in self.versions:
            return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
        numbers = self.versions[subject]
        index = len(numbers) if version in ("latest", "-1") else int(version)
        if not 1 <= index <= len(numbers):
            return 404, {"error_code": 40402, "message": "Version not found"}
        return 200, self._registered(subject, numbers[index - 1])
