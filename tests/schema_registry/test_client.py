"""SchemaRegistryClient: what it asks for, keeps, tries again, and says when it fails."""

from __future__ import annotations

import base64
import ssl
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kprod.errors import KafkaConfigurationError, RetriableError
from kprod.schema_registry import (
    AvroSerializer,
    JSONSerializer,
    RegisteredSchema,
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    SchemaRegistryError,
    SchemaRegistryUnavailableError,
)
from kprod.schema_registry.cache import FetchingCache
from tests.certificates import CertificateAuthority
from tests.schema_registry.server import RegistryServer

SCHEMA = Schema('{"type": "string"}')


@pytest.fixture
def second() -> Iterator[RegistryServer]:
    made = RegistryServer()
    yield made
    made.close()


def test_register_and_find(registry: SchemaRegistryClient) -> None:
    made = registry.register("a/b", SCHEMA)
    assert (made.id, made.subject, made.schema) == (1, "a/b", SCHEMA)
    found = registry.lookup("a/b", SCHEMA)
    assert (found.id, found.version, found.guid) == (1, 1, made.guid)
    assert registry.latest("a/b") == registry.version("a/b", 1) == found
    assert registry.schema(1) == SCHEMA
    assert registry.subjects() == ["a/b"]


def test_type_and_references_come_back(registry: SchemaRegistryClient) -> None:
    registry.register("base", Schema("{}", "JSON"))
    schema = Schema('{"$ref": "base.json"}', "JSON", (SchemaReference("base.json", "base", 1),))
    assert registry.schema(registry.register("s", schema).id) == schema


def test_nothing_is_asked_twice(server: RegistryServer, registry: SchemaRegistryClient) -> None:
    for _ in range(3):
        registry.register("s", SCHEMA)
        registry.lookup("s", SCHEMA)
        registry.latest("s")
        registry.version("s", 1)
        registry.schema(1)
    assert set(server.requests.values()) == {1}
    assert len(server.requests) == 5


def test_threads_that_want_the_same_ask_once(server: RegistryServer, registry: SchemaRegistryClient) -> None:
    start = threading.Barrier(8)

    def ask(_: int) -> RegisteredSchema:
        start.wait()
        return registry.register("s", SCHEMA)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1
    assert server.requests["POST /subjects/s/versions"] == 1


def test_the_cache_is_bounded_and_forgets_what_was_not_used_for_longest(server: RegistryServer) -> None:
    with SchemaRegistryClient(server.url, cache_capacity=2) as registry:
        for subject in ("a", "b", "a", "c", "a", "b"):
            registry.register(subject, SCHEMA)
    assert server.requests["POST /subjects/a/versions"] == 1
    assert server.requests["POST /subjects/b/versions"] == 2


def test_a_cache_with_time_to_live() -> None:
    now = 0.0
    cache: FetchingCache[int] = FetchingCache(10, 5.0, lambda: now)
    values = iter([1, 2])
    assert cache.get("k", lambda: next(values)) == 1
    now = 4.9
    assert cache.get("k", lambda: next(values)) == 1
    now = 5.0
    assert cache.get("k", lambda: next(values)) == 2


def test_latest_is_believed_for_latest_ttl_ms(server: RegistryServer) -> None:
    with SchemaRegistryClient(server.url, latest_ttl_ms=0) as registry:
        registry.register("s", SCHEMA)
        assert registry.latest("s").version == 1
        registry.register("s", Schema('{"type": "int"}'))
        assert registry.latest("s").version == 2


def test_a_failure_is_not_kept(server: RegistryServer, registry: SchemaRegistryClient) -> None:
    with pytest.raises(SchemaRegistryError):
        registry.latest("s")
    registry.register("s", SCHEMA)
    assert registry.latest("s").id == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_can_pass_is_tried_again(
    server: RegistryServer, registry: SchemaRegistryClient, status: int
) -> None:
    server.fail_next = [(status, "<html>busy</html>")] * 3
    assert registry.register("s", SCHEMA).id == 1
    assert server.requests["POST /subjects/s/versions"] == 4


def test_after_the_last_retry_it_is_an_error_that_says_all(
    server: RegistryServer, registry: SchemaRegistryClient
) -> None:
    server.fail_next = [(503, {"error_code": 50003, "message": "no leader"})] * 4
    with pytest.raises(SchemaRegistryUnavailableError) as caught:
        registry.register("s", SCHEMA)
    error = caught.value
    assert isinstance(error, RetriableError)
    assert (error.http_status, error.error_code, error.subject) == (503, 50003, "s")
    assert f"no leader [subject s, HTTP 503, error code 50003, at {server.url}/subjects/s/versions]" in str(
        error
    )


def test_what_cannot_pass_is_not_tried_again(server: RegistryServer, registry: SchemaRegistryClient) -> None:
    with pytest.raises(SchemaRegistryError, match="auto_register_schemas=True") as caught:
        registry.lookup("s", SCHEMA)
    assert caught.value.error_code == 40401
    assert server.requests["POST /subjects/s"] == 1
    with pytest.raises(SchemaRegistryError, match="schema id 7, HTTP 404, error code 40403") as caught:
        registry.schema(7)
    assert caught.value.schema_id == 7


def test_an_incompatible_schema(server: RegistryServer, registry: SchemaRegistryClient) -> None:
    server.fail_next = [(409, {"error_code": 409, "message": "incompatible with an earlier schema"})]
    with pytest.raises(SchemaRegistryError, match="breaks the subject's compatibility rule"):
        registry.register("s", SCHEMA)


def test_an_answer_that_is_no_json(server: RegistryServer, registry: SchemaRegistryClient) -> None:
    server.fail_next = [(200, "<html>portal</html>")]
    with pytest.raises(SchemaRegistryError, match="is this the URL of a Schema Registry"):
        registry.subjects()
    server.fail_next = [(200, {"welcome": 1})]
    with pytest.raises(SchemaRegistryError, match="names no schema id"):
        registry.register("s", SCHEMA)


def test_another_url_takes_over_and_is_asked_first_then(
    server: RegistryServer, second: RegistryServer
) -> None:
    server.fail_next = [(500, "")]
    with SchemaRegistryClient(f"{server.url}, {second.url}", retries=0) as registry:
        registry.register("a", SCHEMA)
        registry.register("b", SCHEMA)
    assert sum(server.requests.values()) == 1
    assert list(second.versions) == ["a", "b"]


def test_a_url_where_nobody_listens_is_passed_over(server: RegistryServer, second: RegistryServer) -> None:
    second.close()
    with SchemaRegistryClient([second.url, server.url], retries=0) as registry:
        assert registry.register("a", SCHEMA).id == 1
    with SchemaRegistryClient(second.url, retries=1, retry_backoff_ms=1) as registry:
        with pytest.raises(SchemaRegistryUnavailableError, match="check the URL") as caught:
            registry.subjects()
    assert second.url in str(caught.value)


def test_basic_auth(server: RegistryServer) -> None:
    server.authorization = "Basic " + base64.b64encode(b"al:p:w@").decode()
    with SchemaRegistryClient(server.url, basic_auth="al:p:w@") as registry:
        assert registry.subjects() == []
    with SchemaRegistryClient(server.url, basic_auth=("al", "p:w@")) as registry:
        assert registry.subjects() == []
    with SchemaRegistryClient(f"http://al:p%3Aw%40@{server.address}") as registry:
        assert registry.subjects() == []
        assert "p%3Aw" not in repr(registry)
    with SchemaRegistryClient(f"http://al:secret@{server.address}") as registry:
        with pytest.raises(SchemaRegistryError, match="check basic_auth or bearer_token") as caught:
            registry.subjects()
    assert "secret" not in str(caught.value)


def test_a_bearer_token_is_asked_for_before_each_request(server: RegistryServer) -> None:
    tokens = iter(["one", "two"])
    with SchemaRegistryClient(server.url, bearer_token=lambda: next(tokens)) as registry:
        registry.subjects()
        registry.subjects()
    assert server.seen_authorization == ["Bearer one", "Bearer two"]


def test_confluent_configuration(server: RegistryServer) -> None:
    server.authorization = "Basic " + base64.b64encode(b"u:p").decode()
    config = {"url": server.url, "basic.auth.user.info": "u:p", "max.retries": 0, "timeout": 5}
    for registry in (SchemaRegistryClient(config), SchemaRegistryClient.from_config(config)):
        with registry:
            assert registry.subjects() == []
    with pytest.raises(KafkaConfigurationError, match=r"user' is no option.*basic.auth.user.info"):
        SchemaRegistryClient({"url": server.url, "basic.auth.user": "u"})


def test_tls(tmp_path: Path, server: RegistryServer) -> None:
    authority = CertificateAuthority(tmp_path)
    certificate = authority.issue("registry", hosts=("localhost",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    url = f"https://localhost:{server._server.server_address[1]}"
    client = authority.issue("client", hosts=("client",))
    with SchemaRegistryClient(
        url,
        ssl_cafile=str(authority.file),
        ssl_certfile=str(client.certificate),
        ssl_keyfile=str(client.key),
        retries=0,
    ) as registry:
        assert registry.subjects() == []
    with SchemaRegistryClient(url, retries=0) as registry:
        with pytest.raises(SchemaRegistryUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            registry.subjects()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"url": ""}, "names no registry"),
        ({"url": "registry:8081"}, "must look like 'https://registry:8081'"),
        ({"url": "http://a", "basic_auth": "nobody", "bearer_token": "t"}, "one Authorization header"),
        ({"url": "http://a", "timeout_ms": 0}, "timeout_ms=0"),
        ({"url": "http://a", "retries": -1}, "retries=-1"),
        ({"url": "http://a", "cache_capacity": True}, "cache_capacity=True"),
        ({"url": "http://a", "basic_auth": ":p"}, "basic_auth must be"),
    ],
)
def test_options_that_are_not_accepted(options: dict[str, object], what: str) -> None:
    with pytest.raises(KafkaConfigurationError, match=what):
        SchemaRegistryClient(**options)  # type: ignore[arg-type]


def test_httpx_does_as_well(server: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with SchemaRegistryClient(server.url) as registry:
        assert registry._transport._library.__name__ == "httpx"
        assert registry.register("s", SCHEMA).id == 1


def test_what_is_not_installed(
    server: RegistryServer, registry: SchemaRegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("httpx", "httpx2", "fastavro", "jsonschema"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'kprod\[registry\]'"):
        SchemaRegistryClient(server.url)
    with pytest.raises(ImportError, match=r"pip install 'kprod\[avro\]'"):
        AvroSerializer(registry, "{}")
    with pytest.raises(ImportError, match=r"pip install 'kprod\[json\]'"):
        JSONSerializer("{}", registry)
    JSONSerializer("{}", registry, validate=False)
