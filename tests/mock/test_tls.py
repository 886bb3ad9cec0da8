"""TLS on the mock cluster: both ways of encrypting, a hostile network, and every wrong setting."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kprod import KafkaProducer, errors
from kprod._core.tls import NotPossible, TlsStream, why_not
from kprod.engine import tls_setup
from kprod.testing import MockCluster
from tests.certificates import Certificate, CertificateAuthority

from .conftest import Eventually, MakeCluster, MakeProducer
from .wire import Wire, record_types

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def broker_certificate(authority: CertificateAuthority) -> Certificate:
    return authority.issue("broker")


@pytest.fixture(scope="module")
def client_certificate(authority: CertificateAuthority) -> Certificate:
    return authority.issue("client")


@pytest.fixture(params=["network loop", "pump"])
def design(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who encrypts: the network loop, or Python's ssl module."""
    monkeypatch.setattr(tls_setup, "PUMP_ONLY", request.param == "pump")
    if request.param == "network loop" and why_not():
        # test_the_network_loop_takes_connections_over fails for a Python that it should work for.
        pytest.skip(why_not())
    return str(request.param)


@pytest.fixture
def wires() -> Iterator[list[Wire]]:
    """Wires to close after the test; to be asked for before clusters and producers, which must end first."""
    made: list[Wire] = []
    yield made
    for wire in made:
        wire.close()


@pytest.fixture
def clusters() -> Iterator[contextlib.ExitStack]:
    """Closes clusters after the test; other than make_cluster it lets handshakes be cut off."""
    with contextlib.ExitStack() as stack:
        yield stack


def server(certificate: Certificate, *, client_ca: Path | None = None, **attributes: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


def trusting(authority: CertificateAuthority, **options: Any) -> dict[str, Any]:
    return {"security_protocol": "SSL", "ssl_cafile": str(authority.file), **options}


def test_the_network_loop_takes_connections_over() -> None:
    """An OpenSSL that is a library can be called; one that is built into the interpreter cannot."""
    import _ssl

    if hasattr(_ssl, "__file__"):
        assert why_not() == ""
    else:
        assert "part of the interpreter" in why_not()


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_records_arrive_whole(
    design: str,
    version: ssl.TLSVersion,
    authority: CertificateAuthority,
    broker_certificate: Certificate,
    make_cluster: MakeCluster,
    make_producer: MakeProducer,
) -> None:
    cluster = make_cluster(ssl_context=server(broker_certificate, maximum_version=version))
    cluster.create_topic("t")
    producer = make_producer(cluster, **trusting(authority))
    values = [os.urandom(n * 37 % 5000) for n in range(2000)] + [os.urandom(1_000_000)] * 3
    for value in values:
        producer.send("t", value)
    producer.flush(30)
    assert [record.value for record in cluster.records("t")] == values
    threads = {thread.name for thread in threading.enumerate()}
    assert any(name.endswith("-tls") for name in threads) == (design == "pump")


def test_a_broker_that_sends_byte_by_byte(
    design: str,
    wires: list[Wire],
    authority: CertificateAuthority,
    broker_certificate: Certificate,
    make_cluster: MakeCluster,
    make_producer: MakeProducer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wires.append(Wire(piece=1).install(monkeypatch))
    cluster = make_cluster(ssl_context=server(broker_certificate))
    cluster.create_topic("t")
    producer = make_producer(cluster, **trusting(authority), batch_size=2000, linger_ms=0)
    for number in range(200):
        producer.send("t", b"%d" % number)
    producer.flush(30)
    assert [record.value for record in cluster.records("t")] == [b"%d" % n for n in range(200)]


def test_one_byte_in_every_tls_record(
    design: str,
    authority: CertificateAuthority,
    broker_certificate: Certificate,
    make_cluster: MakeCluster,
    make_producer: MakeProducer,
) -> None:
    cluster = make_cluster(ssl_context=server(broker_certificate))
    cluster.create_topic("t")
    producer = make_producer(cluster, **trusting(authority))
    cluster.set_slow_writes(0)
    for number in range(20):
        producer.send("t", b"%d" % number).get(30)
    assert cluster.count("t") == 20


@pytest.mark.parametrize("more", [1, 3, 5, 20, 200])
def test_a_connection_that_ends_within_a_record(
    design: str,
    wires: list[Wire],
    more: int,
    authority: CertificateAuthority,
    broker_certificate: Certificate,
    clusters: contextlib.ExitStack,
    make_producer: MakeProducer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut at different places behind the handshake: nothing is lost, and nothing is there twice."""
    context = server(broker_certificate, maximum_version=TLS12)
    wires.append(Wire(piece=1, cut_after=1500 + more).install(monkeypatch))
    cluster = clusters.enter_context(MockCluster(ssl_context=context))
    cluster.create_topic("t")
    producer = make_producer(cluster, **trusting(authority), linger_ms=0, batch_size=500)
    values: list[bytes] = []
    deadline = time.monotonic() + 20
    while not wires[0].cuts and time.monotonic() < deadline:
        values.append(b"%d" % len(values))
        producer.send("t", values[-1]).get(20)
    producer.flush(20)
    assert wires[0].cuts == 1
    assert [record.value for record in cluster.records("t")] == values


def test_the_end_of_a_connection_is_announced(
    design: str,
    wires: list[Wire],
    authority: CertificateAuthority,
    broker_certificate: Certificate,
    make_cluster: MakeCluster,
    make_producer: MakeProducer,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    """close_notify is the last record: an alert, which TLS 1.2 lets an onlooker see."""
    wires.append(Wire().install(monkeypatch))
    cluster = make_cluster(ssl_context=server(broker_certificate, maximum_version=TLS12))
    cluster.create_topic("t")
    producer = make_producer(cluster, **trusting(authority))
    producer.send("t", b"v").get(20)
    producer.close()
    assert wires[0].connections >= 2
    eventually(lambda: all(record_types(bytes(sent))[-1] == 21 for sent in wires[0].sent_by_client))


def test_a_broker_that_goes_and_comes_back(
    design: str,
    authority: CertificateAuthority,
    broker_certificate: Certificate,
    clusters: contextlib.ExitStack,
    make_producer: MakeProducer,
) -> None:
    cluster = clusters.enter_context(MockCluster(ssl_context=server(broker_certificate)))
    cluster.create_topic("t")
    producer = make_producer(cluster, **trusting(authority))
    for number in range(5):
        producer.send("t", b"%d" % number).get(20)
        cluster.disconnect_clients()
    cluster.stop_broker(1)
    waiting = producer.send("t", b"5")
    cluster.start_broker(1)
    waiting.get(20)
    assert [record.value for record in cluster.records("t")] == [b"%d" % n for n in range(6)]


def test_client_certificates(
    design: str,
    authority: CertificateAuthority,
    broker_certificate: Certificate,
    client_certificate: Certificate,
    make_cluster: MakeCluster,
    make_producer: MakeProducer,
) -> None:
    cluster = make_cluster(ssl_context=server(broker_certificate, client_ca=authority.file))
    cluster.create_topic("t")
    producer = make_producer(
        cluster,
        **trusting(authority),
        ssl_certfile=str(client_certificate.certificate),
        ssl_keyfile=str(client_certificate.key),
    )
    producer.send("t", b"v").get(20)


def test_a_context_of_the_users_own_that_needs_the_gil(
    authority: CertificateAuthority,
    broker_certificate: Certificate,
    make_cluster: MakeCluster,
    make_producer: MakeProducer,
    tmp_path: Path,
) -> None:
    """A key log is written by Python: such a connection stays with the ssl module."""
    cluster = make_cluster(ssl_context=server(broker_certificate))
    cluster.create_topic("t")
    context = ssl.create_default_context(cafile=authority.file)
    context.keylog_filename = str(tmp_path / "keys")
    producer = make_producer(cluster, security_protocol="SSL", ssl_context=context)
    producer.send("t", b"v").get(20)
    assert "SECRET" in (tmp_path / "keys").read_text()
    assert any(thread.name.endswith("-tls") for thread in threading.enumerate())


def test_a_connection_that_is_not_an_ssl_socket_is_not_taken_over() -> None:
    class Pretender:
        context = ssl.create_default_context()
        _sslobj = object()

        def fileno(self) -> int:
            return 0

    with pytest.raises(NotPossible, match=r"is not the known kind of connection|cannot|not known|part of"):
        TlsStream(Pretender())  # type: ignore[arg-type]


def test_renewed_certificates_are_used_without_a_restart(
    design: str,
    authority: CertificateAuthority,
    client_certificate: Certificate,
    make_cluster: MakeCluster,
    make_producer: MakeProducer,
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    """The broker gets a certificate of another authority, the producer's file that authority."""
    other = CertificateAuthority(tmp_path, "other authority")
    trusted = tmp_path / "trusted.pem"
    shutil.copy(authority.file, trusted)
    context = server(authority.issue("first broker"))
    with MockCluster(ssl_context=context) as cluster:
        cluster.create_topic("t")
        producer = make_producer(cluster, security_protocol="SSL", ssl_cafile=str(trusted))
        producer.send("t", b"0").get(20)
        renewed = other.issue("second broker")
        context.load_cert_chain(renewed.certificate, renewed.key)
        cluster.disconnect_clients()
        eventually(lambda: not producer.bootstrap_connected())
        new = tmp_path / "new.pem"
        new.write_bytes(other.pem)
        os.replace(new, trusted)
        producer.send("t", b"1").get(30)
        producer.close()
        assert cluster.count("t") == 2


# --- What can be wrong --------------------------------------------------------------------------------------


class Case:
    """A wrong setting: how the broker is set up, with which options it is met, and the error that tells."""

    def __init__(
        self,
        name: str,
        error: type[errors.KafkaError],
        text: str,
        broker: Callable[[CertificateAuthority, Path], ssl.SSLContext | None],
        options: Callable[[CertificateAuthority, Path], dict[str, Any]] = lambda ca, folder: trusting(ca),
        refuses: bool = False,
    ) -> None:
        self.name = name
        self.error = error
        self.text = text
        self.broker = broker
        self.options = options
        self.refuses = refuses
        """It is the broker that refuses the handshake, with an alert."""


@contextlib.contextmanager
def refusing_broker(context: ssl.SSLContext) -> Iterator[str]:
    """A server that never gets further than the handshake. (asyncio's, in MockCluster, sends no alerts.)"""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with sock:
                    connection = context.wrap_socket(
                        sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
                    )
                    with connection, contextlib.suppress(OSError):
                        with contextlib.suppress(ssl.SSLError):
                            connection.do_handshake()
                        # What the client sends is read, or the alert could be lost with the connection.
                        rest = socket.socket(fileno=connection.detach())
                        with rest:
                            rest.shutdown(socket.SHUT_WR)
                            while rest.recv(1024):
                                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@contextlib.contextmanager
def mock_broker(context: ssl.SSLContext | None) -> Iterator[str]:
    with MockCluster(ssl_context=context) as cluster:
        yield cluster.bootstrap_servers


def _demanding(version: ssl.TLSVersion) -> Callable[[CertificateAuthority, Path], ssl.SSLContext]:
    return lambda ca, folder: server(ca.issue("demanding broker"), client_ca=ca.file, maximum_version=version)


def _stranger(ca: CertificateAuthority, folder: Path) -> dict[str, Any]:
    stranger = CertificateAuthority(folder, "unknown authority").issue("stranger")
    return trusting(ca, ssl_certfile=str(stranger.certificate), ssl_keyfile=str(stranger.key))


def _revoking(ca: CertificateAuthority, folder: Path) -> dict[str, Any]:
    return trusting(ca, ssl_crlfile=str(folder / "revoked.crl"))


def _revoked(ca: CertificateAuthority, folder: Path) -> ssl.SSLContext:
    certificate = ca.issue("revoked broker")
    shutil.copy(ca.revoke(certificate), folder / "revoked.crl")
    return server(certificate)


def _old(ca: CertificateAuthority, folder: Path) -> ssl.SSLContext:
    context = server(ca.issue("broker of old"))
    context.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL 3 has none for TLS 1.1 otherwise
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def _one_cipher(ca: CertificateAuthority, folder: Path) -> ssl.SSLContext:
    context = server(ca.issue("one cipher"), maximum_version=TLS12)
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    return context


CASES = [
    Case(
        "an authority that is not trusted",
        errors.CertificateNotTrustedError,
        "ssl_cafile",
        lambda ca, folder: server(CertificateAuthority(folder, "unknown").issue("broker")),
    ),
    Case(
        "an expired certificate",
        errors.CertificateExpiredError,
        "Renew it",
        lambda ca, folder: server(ca.issue("old broker", days=(-2, -1))),
    ),
    Case(
        "a certificate for another host",
        errors.HostNameMismatchError,
        "advertised.listeners",
        lambda ca, folder: server(ca.issue("elsewhere", hosts=("kafka.example.com",))),
    ),
    Case("a revoked certificate", errors.CertificateRevokedError, "ssl_crlfile", _revoked, _revoking),
    Case(
        "no client certificate (TLS 1.2)",
        errors.ClientCertificateRequiredError,
        "ssl_certfile",
        _demanding(TLS12),
        refuses=True,
    ),
    Case(
        "no client certificate (TLS 1.3)",
        errors.ClientCertificateRequiredError,
        "ssl_certfile",
        _demanding(TLS13),
        refuses=True,
    ),
    Case(
        "a strange client certificate (TLS 1.2)",
        errors.ClientCertificateRefusedError,
        "trust store",
        _demanding(TLS12),
        _stranger,
        refuses=True,
    ),
    Case(
        "a strange client certificate (TLS 1.3)",
        errors.ClientCertificateRefusedError,
        "trust store",
        _demanding(TLS13),
        _stranger,
        refuses=True,
    ),
    Case(
        "no TLS version in common",
        errors.TlsNegotiationError,
        "ssl_enabled_protocols",
        lambda ca, folder: server(ca.issue("modern broker"), minimum_version=TLS13),
        lambda ca, folder: trusting(ca, ssl_enabled_protocols=["TLSv1.2"]),
        refuses=True,
    ),
    Case(
        "no cipher suite in common",
        errors.TlsNegotiationError,
        "ssl_ciphers",
        _one_cipher,
        lambda ca, folder: trusting(ca, ssl_ciphers="ECDHE-ECDSA-AES256-GCM-SHA384"),
        refuses=True,
    ),
    Case(
        "a listener without TLS",
        errors.PlaintextListenerError,
        "security_protocol",
        lambda ca, folder: None,
    ),
]
if ssl.HAS_TLSv1_1:  # or no broker can be had that has it
    CASES.append(
        Case(
            "a broker with TLS 1.1 at most",
            errors.TlsNegotiationError,
            "TLS 1.2 or newer",
            _old,
            refuses=True,
        )
    )


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_each_wrong_setting_has_an_error_of_its_own(
    case: Case, design: str, authority: CertificateAuthority, tmp_path: Path
) -> None:
    context = case.broker(authority, tmp_path)
    options = case.options(authority, tmp_path)
    with refusing_broker(context) if case.refuses and context else mock_broker(context) as address:
        began = time.monotonic()
        with pytest.raises(case.error, match=case.text) as caught:
            KafkaProducer(bootstrap_servers=address, **options)
        # bootstrap_timeout_ms is 30 s: it is not that which ended the wait.
        assert time.monotonic() - began < 10
        assert type(caught.value) is case.error
        assert address in str(caught.value)
        producer = KafkaProducer(bootstrap_servers=address, bootstrap_timeout_ms=0, **options)
        with contextlib.closing(producer):
            with pytest.raises(case.error, match=case.text):
                producer.send("t", b"v")
            with pytest.raises(case.error, match=case.text):
                producer.partitions_for("t")


def test_the_check_of_host_names_can_be_switched_off(
    authority: CertificateAuthority, make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(ssl_context=server(authority.issue("elsewhere", hosts=("kafka.example.com",))))
    cluster.create_topic("t")
    for options in ({"ssl_check_hostname": False}, {"ssl_endpoint_identification_algorithm": ""}):
        make_producer(cluster, **trusting(authority, **options)).send("t", b"v").get(20)


def test_plaintext_on_a_port_with_tls() -> None:
    """Kafka answers with an alert: content type 21, version 3.3, fatal, internal_error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        connections = []

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    connections.append(sock)
                    with sock:
                        sock.recv(1024)
                        sock.sendall(b"\x15\x03\x03\x00\x02\x02\x50")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(errors.TlsListenerError, match=f"127.0.0.1:{port}") as caught:
            KafkaProducer(bootstrap_servers=f"127.0.0.1:{port}")
        assert "'SSL'" in str(caught.value)
        assert len(connections) <= 2
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_refusing_broker_is_not_hammered(authority: CertificateAuthority, tmp_path: Path) -> None:
    with MockCluster(
        ssl_context=server(CertificateAuthority(tmp_path, "unknown").issue("broker"))
    ) as cluster:
        with contextlib.closing(
            KafkaProducer(
                bootstrap_servers=cluster.bootstrap_servers, bootstrap_timeout_ms=0, **trusting(authority)
            )
        ) as producer:
            began = time.monotonic()
            while time.monotonic() - began < 2:
                with pytest.raises(errors.CertificateNotTrustedError):
                    producer.send("t", b"v")
        # A failed handshake each; without a longer pause after refusals there are more than 8.
        assert 1 <= len(cluster.problems) <= 6


def test_a_broker_that_says_nothing_during_the_handshake(authority: CertificateAuthority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(errors.NoBrokersAvailable, match=f"127.0.0.1:{port}"):
            KafkaProducer(
                bootstrap_servers=f"127.0.0.1:{port}",
                **trusting(authority),
                socket_connection_setup_timeout_ms=200,
                socket_connection_setup_timeout_max_ms=200,
            )
        assert time.monotonic() - began < 10
