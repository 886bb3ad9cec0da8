"""Settings that are wrong, or right, and never shown: no broker is needed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kprod import KafkaProducer
from kprod.cli import main
from kprod.config import OPTIONS, ProducerConfig
from kprod.errors import KafkaConfigurationError, KafkaError
from kprod.security import jaas
from kprod.security.exchange import Frame
from kprod.security.oauthbearer import Token
from kprod.security.redaction import HIDDEN, without_secrets
from kprod.testing import MockProducer
from tests.secrets.disclosure import Output
from tests.secrets.files import PASSWORD, Files, make_files

SASL = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_plain_username": "alice"}
TLS = {"security_protocol": "SSL"}
OAUTH = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "OAUTHBEARER",
    "sasl_oauthbearer_token_endpoint_url": "https://idp.example/token",
    "sasl_oauthbearer_client_credentials_client_id": "orders",
}
SURROGATES = PASSWORD + "\udce9"  # as os.environ has it for a byte that is not UTF-8
LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp("certificates"))


def attempt(output: Output, options: dict[str, Any]) -> KafkaError | None:
    """Make a producer of options, with nobody to connect to, and show all there is to see of it."""
    given = {"bootstrap_servers": "127.0.0.1:1", "bootstrap_timeout_ms": 0, **options}
    error: KafkaError | None = None
    for way in ({"mapping": given, "kwargs": {}}, {"mapping": None, "kwargs": given}):
        if way["mapping"] is None and any("." in name for name in given):
            continue
        try:
            config = ProducerConfig.from_options(way["mapping"], way["kwargs"])
            output.show(config, config.as_dict(), config.without_effect, copy.copy(config))
            output.show(*(option.show(getattr(config, option.name)) for option in OPTIONS.values()))
            with KafkaProducer(given) as producer:
                output.show(producer, producer.config, producer.metrics(), producer.metrics(raw=True))
                output.show(producer.healthy(), vars(producer))
            with MockProducer(given) as mock:
                output.show(mock, vars(mock), mock.config)
        except KafkaError as caught:
            output.show(caught, *caught.args)
            error = caught
    return error


# --- what is right

RIGHT: dict[str, Callable[[Files], dict[str, Any]]] = {
    "PLAIN": lambda f: {**SASL, "sasl_plain_password": PASSWORD},
    "SCRAM": lambda f: {**SASL, "sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_password": PASSWORD},
    "librdkafka's names": lambda f: {
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": "alice",
        "sasl.password": PASSWORD,
    },
    "JAAS": lambda f: {
        "security_protocol": "SASL_SSL",
        "sasl_jaas_config": f'{LOGIN} username="alice" password={quoted(PASSWORD)};',
    },
    "client secret": lambda f: {**OAUTH, "sasl_oauthbearer_client_credentials_client_secret": PASSWORD},
    "passphrase of an assertion": lambda f: {
        **OAUTH,
        "sasl_oauthbearer_client_credentials_client_secret": PASSWORD,
        "sasl_oauthbearer_assertion_private_key_file": str(f.encrypted),
        "sasl_oauthbearer_assertion_private_key_passphrase": PASSWORD,
        "sasl_oauthbearer_assertion_algorithm": "ES256",
    },
    "encrypted PEM key": lambda f: {
        **TLS,
        "ssl_certfile": str(f.client.certificate),
        "ssl_keyfile": str(f.encrypted),
        "ssl_password": PASSWORD,
    },
    "key as text": lambda f: {
        **TLS,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.key": f.key,
        "ssl.keystore.certificate.chain": f.client.certificate.read_text(),
    },
    "encrypted key as text": lambda f: {
        **TLS,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.key": f.encrypted_text,
        "ssl.key.password": PASSWORD,
        "ssl.keystore.certificate.chain": f.client.certificate.read_text(),
    },
    "PKCS#12": lambda f: {
        **TLS,
        "ssl.keystore.location": str(f.keys),
        "ssl.keystore.password": PASSWORD,
        "ssl.truststore.location": str(f.trust),
        "ssl.truststore.password": PASSWORD,
    },
}


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@pytest.mark.parametrize("setting", sorted(RIGHT))
def test_what_is_right_does_not_show(files: Files, output: Output, setting: str) -> None:
    assert attempt(output, RIGHT[setting](files)) is None
    assert "ProducerConfig(" in output.text
    assert output.disclosed(files.secrets) == []


# --- what is wrong

WRONG: dict[str, Callable[[Files], dict[str, Any]]] = {
    "bytes": lambda f: {**SASL, "sasl_plain_password": PASSWORD.encode()},
    "a list": lambda f: {**SASL, "sasl_plain_password": [PASSWORD]},
    "a set of options": lambda f: {**SASL, "sasl_jaas_config": {"password": PASSWORD}},
    "surrogates": lambda f: {**SASL, "sasl_plain_password": SURROGATES},
    "surrogates in a key's password": lambda f: {
        **TLS,
        "ssl_certfile": str(f.client.certificate),
        "ssl_keyfile": str(f.encrypted),
        "ssl_password": SURROGATES,
    },
    "surrogates in a key": lambda f: {
        **TLS,
        "ssl_keystore_key": f.key + "\udce9",
        "ssl_keystore_certificate_chain": f.client.certificate.read_text(),
    },
    "an unknown option": lambda f: {"sasl_plain_passwort": PASSWORD},
    "an unknown option of a secret": lambda f: {"ssl.keystore.secret": f.key, "basic.auth": PASSWORD},
    "the value within the name": lambda f: {f"sasl.password:{PASSWORD}": ""},
    "an option that is elsewhere": lambda f: {"ssl.key.pem": f.key},
    "given twice": lambda f: {**SASL, "sasl_plain_password": PASSWORD, "sasl.password": PASSWORD + "2"},
    "no mechanism": lambda f: {"security_protocol": "SASL_SSL", "sasl_plain_password": PASSWORD},
    "a password where an address belongs": lambda f: {
        "bootstrap_servers": f"alice:{PASSWORD}@kafka.example:9092"
    },
    "JAAS without quotes": lambda f: {**SASL, "sasl_jaas_config": f"{LOGIN} password={PASSWORD};"},
    "JAAS of another kind": lambda f: {
        **SASL,
        "sasl_jaas_config": f"com.example.Login required password={quoted(PASSWORD)};",
    },
    "JAAS that contradicts": lambda f: {
        **SASL,
        "sasl_plain_password": PASSWORD,
        "sasl_jaas_config": f'{LOGIN} username="alice" password={quoted(PASSWORD + "2")};',
    },
    "only a password": lambda f: {**SASL, "sasl_jaas_config": PASSWORD},
    "a secret without an id": lambda f: {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "OAUTHBEARER",
        "sasl_oauthbearer_token_endpoint_url": "https://idp.example/token",
        "sasl_oauthbearer_client_credentials_client_secret": PASSWORD,
    },
    "a client secret of another type": lambda f: {
        **OAUTH,
        "sasl_oauthbearer_client_credentials_client_secret": PASSWORD.encode(),
    },
    "a secret in the address of the endpoint": lambda f: {
        **OAUTH,
        "sasl_oauthbearer_token_endpoint_url": f"https://orders:{PASSWORD}@idp.example/token",
        "sasl_oauthbearer_client_credentials_client_secret": "another",
    },
    "a token instead of a provider": lambda f: {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "OAUTHBEARER",
        "sasl_oauth_token_provider": PASSWORD,
    },
    "a wrong password of a PEM key": lambda f: {
        **TLS,
        "ssl_certfile": str(f.client.certificate),
        "ssl_keyfile": str(f.encrypted),
        "ssl_password": PASSWORD + "2",
    },
    "a password of a PEM key that is too long": lambda f: {
        **TLS,
        "ssl_certfile": str(f.client.certificate),
        "ssl_keyfile": str(f.encrypted),
        "ssl_password": PASSWORD * 30,
    },
    "no password for a PEM key": lambda f: {
        **TLS,
        "ssl_certfile": str(f.client.certificate),
        "ssl_keyfile": str(f.encrypted),
    },
    "a key as text for another certificate": lambda f: {
        **TLS,
        "ssl_keystore_key": f.authority.issue("other").key.read_text(),
        "ssl_keystore_certificate_chain": f.client.certificate.read_text(),
    },
    "a damaged key as text": lambda f: {
        **TLS,
        "ssl_keystore_key": f.key[:100] + "!" + f.key[100:],
        "ssl_keystore_certificate_chain": f.client.certificate.read_text(),
    },
    "a key as text of another type": lambda f: {
        **TLS,
        "ssl_keystore_key": f.key.encode(),
        "ssl_keystore_certificate_chain": f.client.certificate.read_text(),
    },
    "a key's text instead of its file": lambda f: {
        **TLS,
        "ssl_certfile": str(f.client.certificate),
        "ssl_keyfile": f.key,
    },
    "a key's text as bytes instead of its file": lambda f: {**TLS, "ssl_keyfile": f.key.encode()},
    "a key's text instead of a store": lambda f: {**TLS, "ssl_keystore_location": f.key},
    "a key's text where a certificate belongs": lambda f: {
        **TLS,
        "ssl_keystore_certificate_chain": f.key,
        "ssl_keystore_key": f.key,
    },
    "a wrong password of a PKCS#12 key store": lambda f: {
        **TLS,
        "ssl_keystore_location": str(f.keys),
        "ssl_keystore_password": PASSWORD + "2",
    },
    "a damaged PKCS#12 key store": lambda f: {
        **TLS,
        "ssl_keystore_location": str(f.damaged),
        "ssl_keystore_password": PASSWORD,
    },
    "a wrong password of a PKCS#12 trust store": lambda f: {
        **TLS,
        "ssl_truststore_location": str(f.trust),
        "ssl_truststore_password": PASSWORD + "2",
    },
    "a key store without a key": lambda f: {
        **TLS,
        "ssl_keystore_location": str(f.trust),
        "ssl_keystore_password": PASSWORD,
    },
}


@pytest.mark.parametrize("setting", sorted(WRONG))
def test_what_is_wrong_does_not_show(files: Files, output: Output, setting: str) -> None:
    error = attempt(output, WRONG[setting](files))
    assert isinstance(error, KafkaConfigurationError)
    assert output.disclosed(files.secrets) == []


def test_a_password_that_is_a_number_is_not_repeated(output: Output) -> None:
    assert attempt(output, {**SASL, "sasl_plain_password": 7391846205}) is not None
    assert output.disclosed({"password": "7391846205"}) == []


def test_every_secret_option_is_marked_as_one() -> None:
    """Whoever adds an option with such a name has to think about it."""
    looks = ("password", "secret", "passphrase", "jaas", "keystore_key", "token_provider")
    assert {name for name in OPTIONS if any(word in name for word in looks)} <= {
        name for name, option in OPTIONS.items() if option.secret
    }


# --- the command line

ARGUMENTS: dict[str, Callable[[Path], list[str]]] = {
    "an option": lambda p: ["-c", f"sasl.password={PASSWORD}", "-c", "sasl.mechanism=PLAIN"],
    "without '='": lambda p: ["-c", f"sasl.password {without_equals(PASSWORD)}"],
    "with ':'": lambda p: ["-c", f"sasl.password:{PASSWORD}"],
    "without a name": lambda p: ["-c", f"={PASSWORD}"],
    "an unknown name": lambda p: ["-c", f"sasl.passwort={PASSWORD}"],
    "a file": lambda p: ["--config-file", properties(p, f"sasl.password={PASSWORD}")],
    "a file with an unknown name": lambda p: ["--config-file", properties(p, f"sasl.passwort={PASSWORD}")],
    "a file with a wrong escape": lambda p: ["--config-file", properties(p, rf"sasl.password=\u{PASSWORD}")],
    "a file in another encoding": lambda p: [
        "--config-file",
        latin1(p, f"sasl.password={PASSWORD}"),
    ],
    "a file without a name": lambda p: ["--config-file", properties(p, PASSWORD.replace("=", ""))],
}


def without_equals(text: str) -> str:
    return text.replace("=", "")


def properties(folder: Path, text: str) -> str:
    path = folder / "client.properties"
    path.write_text(f"security.protocol=SASL_SSL\n{text}\n", encoding="utf-8")
    return str(path)


def latin1(folder: Path, text: str) -> str:
    path = folder / "client.properties"
    path.write_bytes(text.encode("latin-1", "replace"))
    return str(path)


@pytest.mark.parametrize("arguments", sorted(ARGUMENTS))
@pytest.mark.parametrize("command", ["produce", "perf"])
def test_the_command_line_repeats_no_value(
    output: Output, tmp_path: Path, arguments: str, command: str
) -> None:
    (tmp_path / "in.txt").write_text("x\n")
    given = ARGUMENTS[arguments](tmp_path)
    if command == "produce":
        line = ["produce", "-b", "127.0.0.1:1", "topic", str(tmp_path / "in.txt"), *given]
    else:
        names = {"-c": "--producer-props", "--config-file": "--producer.config"}
        given = [names.get(each, each) for each in given]
        line = [
            "perf",
            "-b",
            "127.0.0.1:1",
            "--topic",
            "t",
            "--num-records",
            "1",
            "--throughput",
            "1",
            *given,
        ]
    try:
        status = main(line)
    except SystemExit as error:
        status = int(error.code or 0)
    assert status != 0
    everything = output.text
    assert everything
    hidden = {"password": PASSWORD, "without '='": without_equals(PASSWORD), "beginning": PASSWORD[:9]}
    assert output.disclosed(hidden) == []


# --- parts


def test_parts_with_secrets_in_them_do_not_show(output: Output) -> None:
    entry = jaas.parse(f'{LOGIN} username="alice" password={quoted(PASSWORD)};')
    assert entry.options["sasl_plain_password"] == PASSWORD
    output.show(entry, Token(PASSWORD, {}), Frame(PASSWORD.encode(), 1))
    assert output.disclosed({"password": PASSWORD}) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("the password 'hunter2+' is wrong", f"the password '{HIDDEN}' is wrong"),
        ("?secret=hunter2%2B&x=1", f"?secret={HIDDEN}&x=1"),
        ("it was aHVudGVyMis=", f"it was {HIDDEN}="),
        ("nothing of it", "nothing of it"),
    ],
)
def test_what_others_write_is_cleaned(text: str, shown: str) -> None:
    assert without_secrets(text, "hunter2+", None, "", "of") == shown
