"""Right and wrong credentials on connections: to the mock cluster, and to small servers for tokens."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
import time
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import boto3
import pytest

from kprod import KafkaProducer, errors
from kprod.cli import main
from kprod.compat.confluent_kafka import KafkaException, Producer
from kprod.schema_registry import SchemaRegistryClient
from kprod.security import aws_msk_iam
from kprod.security.oauthbearer import UnsecuredTokens
from kprod.testing import MockCluster
from tests.secrets.disclosure import Output, distinct
from tests.secrets.files import PASSWORD, Files, make_files

OTHER = distinct("other")
# What RFC 6750 and HTTP allow in tokens.
TOKEN = "Zq7token.Zq7claims-Zq7more_Zq7+/sign8xW=="
PLAINTEXT = {"security_protocol": "SASL_PLAINTEXT"}


@pytest.fixture
def salted(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """SCRAM's salted passwords, as they are made; in hexadecimal, base64 and as bytes they are secret too."""
    made: dict[str, str] = {}
    real = hashlib.pbkdf2_hmac

    def record(*arguments: Any) -> bytes:
        result: bytes = real(*arguments)
        made[f"salted password {len(made)}"] = result.decode("latin-1")
        made[f"salted password {len(made)}, repr"] = repr(result)[2:-1]
        made[f"salted password {len(made)}, hexadecimal"] = result.hex()
        made[f"salted password {len(made)}, base64"] = b64encode(result).decode().rstrip("=")
        return result

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", record)
    return made


def use(output: Output, producer: KafkaProducer, cluster: MockCluster, until: Callable[[], bool]) -> None:
    """Send until something is so, and look at everything on the way."""
    deadline = time.monotonic() + 20
    while True:
        future = producer.send("t", b"x")
        output.show(future, future.get(20))
        if until():
            break
        assert time.monotonic() < deadline
    output.show(producer, producer.config, vars(producer), producer.metrics(), producer.metrics(raw=True))
    output.show(producer.healthy(), producer.metrics(), cluster, vars(cluster))


def renewals(producer: KafkaProducer) -> float:
    figures = producer.metrics()
    assert figures is not None
    return float(figures["producer-metrics"]["successful-reauthentication-total"])


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"])
@pytest.mark.parametrize("process", [False, True], ids=["thread", "process"])
def test_authentication_that_works_then_does_not(
    output: Output, salted: dict[str, str], mechanism: str, process: bool
) -> None:
    token = UnsecuredTokens("alice", claims={"secret": "Zq7planted8xW"}).token()
    with MockCluster(sasl_users={"alice": PASSWORD}, max_reauth_ms=400, process=process) as cluster:
        cluster.create_topic("t")
        options: dict[str, Any] = {**PLAINTEXT, "bootstrap_servers": cluster.bootstrap_servers}
        options["sasl_mechanism"] = mechanism
        if mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = lambda: token
        else:
            options |= {"sasl_plain_username": "alice", "sasl_plain_password": PASSWORD}
        with KafkaProducer(**options, reconnect_backoff_ms=5, reconnect_backoff_max_ms=20) as producer:
            use(output, producer, cluster, lambda: renewals(producer) >= 1)
            cluster.set_password("alice", None if mechanism == "OAUTHBEARER" else OTHER)
            cluster.disconnect_clients()
            try:
                while True:
                    producer.send("t", b"y").get(20)
            except errors.KafkaError as error:
                output.show(error)
                assert isinstance(error, errors.SaslAuthenticationFailedError)
            output.show(producer.healthy(), producer.metrics())
        with pytest.raises(errors.SaslAuthenticationFailedError) as caught:
            KafkaProducer(**options)
        output.show(caught.value)
        output.show(cluster)
    assert bool(salted) == mechanism.startswith("SCRAM")
    parts = {f"part {n} of the token": part for n, part in enumerate(token.split(".")) if len(part) > 30}
    assert output.disclosed({"password": PASSWORD, "other": OTHER, "token": token, **parts}) == []
    text = output.text
    assert [what for what, written in salted.items() if written in text] == []


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize("given", [b"bytes", SyntaxError, "surrogates"], ids=["bytes", "error", "surrogates"])
def test_callables_that_give_what_is_not_accepted(output: Output, mechanism: str, given: Any) -> None:
    def password() -> Any:
        if given is SyntaxError:
            raise KeyError("no such secret")
        return PASSWORD.encode() if given == b"bytes" else PASSWORD + "\udce9"

    with MockCluster(sasl_users={"alice": PASSWORD}) as cluster:
        options = {"bootstrap_servers": cluster.bootstrap_servers, "sasl_plain_username": "alice"}
        with pytest.raises(errors.SaslAuthenticationFailedError) as caught:
            KafkaProducer(**PLAINTEXT, **options, sasl_mechanism=mechanism, sasl_plain_password=password)
        output.show(caught.value)
    assert output.disclosed({"password": PASSWORD}) == []


def test_a_broker_that_repeats_what_it_was_sent(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers should not; theirs is the one text in an error that kprod does not write."""
    from kprod.testing.broker import sasl

    def repeat(self: Any, token: bytes) -> bytes:
        raise sasl.Refused(f"who is {token.split(bytes(1))[-1].decode()}? ({quote(PASSWORD)})")

    monkeypatch.setattr(sasl.SaslSession, "_plain", repeat)
    with MockCluster(sasl_users={"alice": PASSWORD}) as cluster:
        options = {"bootstrap_servers": cluster.bootstrap_servers, "sasl_plain_username": "alice"}
        with pytest.raises(errors.SaslAuthenticationFailedError, match="who is <hidden>") as caught:
            KafkaProducer(**PLAINTEXT, **options, sasl_mechanism="PLAIN", sasl_plain_password=PASSWORD)
        output.show(caught.value)
    assert output.disclosed({"password": PASSWORD}) == []


# --- other fronts: the compatible producer, and the command line


def test_the_producer_of_confluent_kafka(output: Output) -> None:
    digits = "7391846205"
    with MockCluster(sasl_users={"alice": digits}) as cluster:
        cluster.create_topic("t")
        told: list[str] = []
        conf: dict[str, Any] = {
            "bootstrap.servers": cluster.bootstrap_servers,
            "security.protocol": "sasl_plaintext",
            "sasl.mechanisms": "SCRAM-SHA-256",
            "sasl.username": "alice",
            "sasl.password": digits,
            "debug": "all",
            "statistics.interval.ms": 50,
            "stats_cb": told.append,
            "error_cb": lambda error: told.append(str(error)),
        }
        producer = Producer(conf)
        producer.produce("t", b"x")
        assert producer.flush(20) == 0
        deadline = time.monotonic() + 20
        while not told:
            assert time.monotonic() < deadline
            producer.poll(0.05)
        output.show(producer, told, producer.list_topics(timeout=20))
        producer.close()
        wrong = Producer({**conf, "sasl.password": PASSWORD})
        told.clear()
        while not told:
            assert time.monotonic() < deadline
            wrong.poll(0.05)
        output.show(wrong, told)
        wrong.close()
        with pytest.raises(KafkaException) as caught:
            Producer({**conf, "sasl.password": PASSWORD.encode()})
        output.show(caught.value, *caught.value.args)
    assert output.disclosed({"password": PASSWORD, "digits": digits}) == []


@pytest.mark.parametrize("password", [PASSWORD, OTHER], ids=["right", "wrong"])
def test_the_command_line(output: Output, tmp_path: Path, password: str) -> None:
    (tmp_path / "in.txt").write_text("x\n")
    with MockCluster(sasl_users={"alice": PASSWORD}) as cluster:
        cluster.create_topic("t")
        config = ["security.protocol=SASL_PLAINTEXT", "sasl.mechanism=PLAIN", "sasl.username=alice"]
        given = [word for text in [*config, f"sasl.password={password}"] for word in ("-c", text)]
        status = main(["produce", "-b", cluster.bootstrap_servers, "t", str(tmp_path / "in.txt"), *given])
    assert (status == 0) == (password == PASSWORD)
    assert output.text
    assert output.disclosed({"password": PASSWORD, "other": OTHER}) == []


# --- TLS

KEYS: dict[str, Callable[[Files], dict[str, Any]]] = {
    "encrypted key": lambda f: {
        "ssl_cafile": str(f.authority.file),
        "ssl_certfile": str(f.client.certificate),
        "ssl_keyfile": str(f.encrypted),
        "ssl_password": PASSWORD,
    },
    "key as text": lambda f: {
        "ssl_cafile": str(f.authority.file),
        "ssl_keystore_certificate_chain": f.client.certificate.read_text(),
        "ssl_keystore_key": f.key,
    },
    "PKCS#12": lambda f: {
        "ssl_truststore_location": str(f.trust),
        "ssl_truststore_password": PASSWORD,
        "ssl_keystore_location": str(f.keys),
        "ssl_keystore_password": PASSWORD,
    },
}


@pytest.mark.parametrize("way", sorted(KEYS))
def test_client_certificates(output: Output, tmp_path: Path, way: str) -> None:
    files = make_files(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    broker = files.authority.issue("broker")
    server.load_cert_chain(broker.certificate, broker.key)
    server.load_verify_locations(files.authority.file)
    server.verify_mode = ssl.CERT_REQUIRED
    options = {"security_protocol": "SSL", **KEYS[way](files)}
    with MockCluster(ssl_context=server) as cluster:
        cluster.create_topic("t")
        with KafkaProducer(bootstrap_servers=cluster.bootstrap_servers, **options) as producer:
            use(output, producer, cluster, lambda: True)
            # Files that have changed, to what cannot be used: this is logged at the next connection.
            for path in (files.client.certificate, files.keys):
                path.write_bytes(files.encrypted.read_bytes())
            cluster.disconnect_clients()
            use(output, producer, cluster, lambda: True)
    text = output.text
    assert ("the changed TLS files are not used yet" in text) == (way != "key as text")
    assert output.disclosed(files.secrets) == []


# --- servers that are asked for tokens and schemas


class Server:
    """HTTP on 127.0.0.1: answers :attr:`answer`, with the request's own for ``{authorization}``."""

    def __init__(self) -> None:
        self.status = 200
        self.answer = ""
        self.asked = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                owner.asked += 1
                text = owner.answer.replace("{authorization}", self.headers.get("Authorization") or "")
                payload = text.encode()
                self.send_response(owner.status)
                self.send_header("Content-Type", "application/json" if text[:1] == "{" else "text/xml")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = _do

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


CLIENT_SECRET = distinct("client").replace("€", "")  # Latin-1, as headers are
OAUTH = {
    **PLAINTEXT,
    "sasl_mechanism": "OAUTHBEARER",
    "sasl_oauthbearer_client_credentials_client_id": "orders",
    "sasl_oauthbearer_client_credentials_client_secret": CLIENT_SECRET,
    "sasl_login_retry_backoff_ms": 1,
    "sasl_login_retry_backoff_max_ms": 1,
}


@pytest.mark.parametrize(
    ("status", "answer", "works"),
    [
        (200, '{"access_token": "TOKEN", "expires_in": 3600, "token_type": "Bearer"}', True),
        (200, '{"access_token": "TOKEN\\n", "expires_in": 3600, "token_type": "Bearer"}', False),
        (200, '{"id_token": "TOKEN"}', False),
        (200, "TOKEN", False),
        (401, '{"error": "invalid_client", "error_description": "got {authorization}"}', False),
        (400, '{"error": "invalid_client", "error_description": "not SECRET"}', False),
        (503, "TOKEN", False),
    ],
)
@pytest.mark.parametrize("urlencode", [False, True])
def test_token_endpoints(
    output: Output, server: Server, status: int, answer: str, works: bool, urlencode: bool
) -> None:
    token = UnsecuredTokens("alice", claims={"secret": "Zq7planted8xW"}).token()
    server.status = status
    server.answer = answer.replace("TOKEN", token).replace("SECRET", json.dumps(CLIENT_SECRET)[1:-1])
    options: dict[str, Any] = {
        **OAUTH,
        "sasl_oauthbearer_token_endpoint_url": f"http://{server.address}/token",
        "sasl_oauthbearer_header_urlencode": urlencode,
    }
    with MockCluster(sasl_users={"alice": ""}) as cluster:
        cluster.create_topic("t")
        options["bootstrap_servers"] = cluster.bootstrap_servers
        if works:
            with KafkaProducer(**options) as producer:
                use(output, producer, cluster, lambda: True)
        else:
            with pytest.raises(errors.SaslAuthenticationFailedError) as caught:
                KafkaProducer(**options)
            output.show(caught.value)
    assert server.asked
    parts = {f"part {n} of the token": part for n, part in enumerate(token.split(".")) if len(part) > 30}
    assert output.disclosed({"client secret": CLIENT_SECRET, "token": token, **parts}) == []


def test_a_client_secret_that_a_header_cannot_carry(output: Output, server: Server) -> None:
    url = f"http://{server.address}/token"
    options = {**OAUTH, "sasl_oauthbearer_token_endpoint_url": url}
    options["sasl_oauthbearer_client_credentials_client_secret"] = PASSWORD
    with MockCluster(sasl_users={}) as cluster, pytest.raises(errors.SaslAuthenticationFailedError) as caught:
        KafkaProducer({**options, "bootstrap_servers": cluster.bootstrap_servers})
    assert "sasl_oauthbearer_header_urlencode=True" in str(caught.value)
    output.show(caught.value)
    assert server.asked == 0
    assert output.disclosed({"client secret": PASSWORD}) == []


AWS_SECRET, SESSION = "Zq7+secret/keyKEYkeyKEY8xW", "Zq7session+token/TOKEN==8xW"
OTHER_AWS, OTHER_SESSION = "Zq7+role/ROLErole8xW", "Zq7rolesession+token/TOKEN==8xW"


@pytest.mark.parametrize("way", ["environment", "role", "refused role", "profile"])
def test_aws(
    output: Output, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    files = {name: tmp_path / name for name in ("config", "credentials")}
    monkeypatch.setenv("AWS_CONFIG_FILE", str(files["config"]))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(files["credentials"]))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # keeps what it has found
    keys = {
        "aws_access_key_id": "AKIDEXAMPLE",
        "aws_secret_access_key": AWS_SECRET,
        "aws_session_token": SESSION,
    }
    if way == "profile":
        lines = "".join(f"{name} = {value}\n" for name, value in keys.items())
        files["credentials"].write_text(f"[orders]\n{lines}")
    else:
        for name, value in keys.items():
            monkeypatch.setenv(name.upper(), value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://{server.address}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    given = f"<AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>{OTHER_AWS}</SecretAccessKey>"
    given += f"<SessionToken>{OTHER_SESSION}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>"
    server.answer = (
        '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>'
        f"<Credentials>{given}</Credentials></AssumeRoleResult></AssumeRoleResponse>"
    )
    if way == "refused role":
        server.status = 403
        server.answer = (
            '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Code>AccessDenied</Code>'
            "<Message>not with {authorization}</Message></Error></ErrorResponse>"
        )
    role = "arn:aws:iam::123456789012:role/orders" if "role" in way else None
    provide = aws_msk_iam.aws_tokens("eu-central-1", "orders" if way == "profile" else None, role)
    token = ""
    if way == "refused role":
        with pytest.raises(errors.TokenUnavailableError) as caught:
            provide()
        output.show(caught.value)
    else:
        made = provide()
        token = made.value
        output.show(made, provide)
    assert (server.asked > 0) == ("role" in way)
    hidden = {"secret key": AWS_SECRET, "session token": SESSION}
    hidden |= {"secret key of the role": OTHER_AWS, "session token of the role": OTHER_SESSION}
    if token:
        signed = urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
        hidden |= {"token": token, "signature": parse_qs(urlsplit(signed).query)["X-Amz-Signature"][0]}
    assert output.disclosed(hidden) == []


def ask(server: Server, output: Output, **options: Any) -> errors.KafkaError | None:
    """Ask the registry for a schema; returns the error."""
    options.setdefault("url", f"http://{server.address}")
    try:
        with SchemaRegistryClient(**options, retries=1, retry_backoff_ms=1) as client:
            output.show(client, vars(client), client.urls)
            output.show(client.schema(1))
    except errors.KafkaError as error:
        output.show(error)
        return error
    return None


REGISTRY: dict[str, dict[str, Any]] = {
    "basic": {"basic_auth": f"alice:{PASSWORD}"},
    "basic, as a pair": {"basic_auth": ("alice", PASSWORD)},
    "in the URL": {"url": f"http://alice:{quote(PASSWORD, safe='')}@HOST"},
    "token": {"bearer_token": TOKEN},
    "token of a function": {"bearer_token": lambda: TOKEN},
    "a header": {"headers": {"X-Api-Key": TOKEN}},
}


@pytest.mark.parametrize("way", sorted(REGISTRY))
@pytest.mark.parametrize("status", [200, 401, 503])
def test_schema_registries(output: Output, server: Server, way: str, status: int) -> None:
    server.status = status
    server.answer = (
        '{"schema": "\\"string\\""}' if status == 200 else '{"error_code": 40101, "message": "no"}'
    )
    options = dict(REGISTRY[way])
    if "url" in options:
        options["url"] = options["url"].replace("HOST", server.address)
    assert (ask(server, output, **options) is None) == (status == 200)
    assert server.asked
    assert output.disclosed({"password": PASSWORD, "token": TOKEN}) == []


@pytest.mark.parametrize(
    "options",
    [
        {"bearer_token": TOKEN + "\n"},
        {"bearer_token": lambda: TOKEN + "\n"},
        {"bearer_token": TOKEN + "ü"},
        {"bearer_token": TOKEN.encode()},
        {"headers": {"X-Api-Key": TOKEN + "\n"}},
        {"headers": {"X-Api-Key": TOKEN + "€"}},
        {"basic_auth": ("alice", PASSWORD, "x")},
        {"basic_auth": f":{PASSWORD}"},
        {"basic_auth": f"alice:{PASSWORD}", "bearer_token": TOKEN},
        {"url": f"http://alice:{PASSWORD}@registry:8081"},
        {"url": "http://alice:p/Zq7password8xW@registry:8081"},
        {"url": "http://alice:Zq7password8xW#@registry:8081"},
        {"url": "http://[alice:Zq7password8xW@registry:8081"},
        {"url": "ftp://alice:Zq7password8xW@registry:8081"},
        {"url": {"url": "http://registry", "basic.auth.user.info": ":Zq7password8xW"}},
    ],
)
def test_credentials_for_a_registry_that_cannot_be_sent(
    output: Output, server: Server, options: dict[str, Any]
) -> None:
    error = ask(server, output, **options)
    assert isinstance(error, errors.KafkaConfigurationError)
    assert server.asked == 0
    assert output.disclosed({"password": PASSWORD, "token": TOKEN, "in the URL": "Zq7password8xW"}) == []
