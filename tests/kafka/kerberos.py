"""A Kerberos realm for tests: MIT's KDC on the loopback interface, with all its files in one folder.

Nothing of it needs root or touches the machine's own Kerberos: every program is told its configuration by
environment variables.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.kafka import reaper
from tests.kafka.cluster import free_ports, wait_until

REALM: Final = "KPROD.TEST"
"""The realm that brokers are in."""

OTHER_REALM: Final = "ELSEWHERE.TEST"
"""A realm of the same KDC that :data:`REALM` does not trust."""

_PROGRAMS: Final = ("krb5kdc", "kdb5_util", "kadmin.local", "kinit")
# Debian keeps the servers' programs where the path of ordinary users does not lead.
_PATH: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))

_KRB5_CONF: Final = """\
[libdefaults]
    default_realm = {default_realm}
    dns_lookup_kdc = false
    dns_lookup_realm = false
    dns_canonicalize_hostname = false
    rdns = false
    udp_preference_limit = 1
[realms]
    {realm} = {{
        kdc = 127.0.0.1:{port}
    }}
    {other} = {{
        kdc = 127.0.0.1:{port}
    }}
[domain_realm]
    localhost = {realm}
"""

_KDC_CONF: Final = """\
[kdcdefaults]
    kdc_listen = 127.0.0.1:{port}
    kdc_tcp_listen = 127.0.0.1:{port}
[realms]
{realms}
[logging]
    kdc = FILE:{folder}/kdc.log
"""

_KDC_REALM: Final = """\
    {realm} = {{
        database_name = {folder}/{realm}.database
        key_stash_file = {folder}/{realm}.stash
        acl_file = {folder}/none.acl
        supported_enctypes = aes256-cts-hmac-sha1-96:normal
        master_key_type = aes256-cts-hmac-sha1-96
        max_life = 1h
    }}
"""


def what_is_missing() -> str | None:
    """What this machine lacks for :class:`KerberosRealm` and a client, in words; None: nothing."""
    programs = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
    if programs:
        return (
            f"{', '.join(programs)} not found (Debian: apt-get install krb5-kdc krb5-admin-server krb5-user)"
        )
    if importlib.util.find_spec("gssapi") is None:
        return "the package gssapi is not installed (pip install gssapi; Debian: libkrb5-dev to build it)"
    return None


class KerberosRealm:
    """A KDC with the realms :data:`REALM` and :data:`OTHER_REALM`, until :meth:`stop`.

    Args:
        folder: an empty folder, for everything.

    Raises:
        RuntimeError: one of MIT's programs failed; says what it wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._port = next(free_ports())
        realms = "".join(_KDC_REALM.format(realm=realm, folder=folder) for realm in (REALM, OTHER_REALM))
        self._kdc_conf = folder / "kdc.conf"
        self._kdc_conf.write_text(_KDC_CONF.format(port=self._port, folder=folder, realms=realms))
        self.config = self.write_config("krb5.conf")
        """The clients' and brokers' ``krb5.conf``."""
        for realm in (REALM, OTHER_REALM):
            self._run("kdb5_util", "create", "-s", "-r", realm, "-P", "master-key-of-a-test")
        log = folder / "krb5kdc.output"
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                [_program("krb5kdc"), "-n", "-r", REALM, "-r", OTHER_REALM, "-P", str(folder / "kdc.pid")],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        reaper.watch(self._process.pid)
        atexit.register(self.stop)
        wait_until(self._listens, f"krb5kdc to answer on port {self._port}; it says: {log.read_text()!r}")

    def stop(self) -> None:
        """End the KDC."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
            reaper.unwatch(self._process.pid)
            atexit.unregister(self.stop)

    def write_config(self, name: str, default_realm: str = REALM, port: int | None = None) -> Path:
        """A ``krb5.conf`` of this name.

        Args:
            name: the file's name, in :attr:`folder`.
            default_realm: the realm of names without one.
            port: where a client looks for the KDC; None: where it is.
        """
        path = self.folder / name
        path.write_text(
            _KRB5_CONF.format(
                default_realm=default_realm, realm=REALM, other=OTHER_REALM, port=port or self._port
            )
        )
        return path

    def keytab(self, principal: str, realm: str = REALM) -> Path:
        """Create a principal with a random key, and a key tab with that."""
        path = self.folder / f"{principal.replace('/', '-')}@{realm}.keytab"
        self._run("kadmin.local", "-r", realm, "addprinc", "-randkey", f"{principal}@{realm}")
        self._run("kadmin.local", "-r", realm, "ktadd", "-k", str(path), f"{principal}@{realm}")
        return path

    def outdated_keytab(self, principal: str) -> Path:
        """A key tab of a principal whose key was changed since."""
        path = self.keytab(principal)
        self._run("kadmin.local", "-r", REALM, "cpw", "-randkey", f"{principal}@{REALM}")
        return path

    def ticket(self, keytab: Path, lifetime: str = "10m") -> Path:
        """Log in with a key tab, by ``kinit``; returns the credential cache with the ticket."""
        cache = self.folder / f"{keytab.stem}-{lifetime}.cache"
        self._run("kinit", "-k", "-t", str(keytab), "-c", str(cache), "-l", lifetime, keytab.stem)
        return cache

    def _listens(self) -> bool:
        # A key that does not exist is asked for: any answer of the KDC will do.
        command = [_program("kinit"), "-k", "-t", str(self.folder / "none"), f"nobody@{REALM}"]
        done = subprocess.run(
            command, env=self._environment(), check=False, capture_output=True, text=True, timeout=60
        )
        return "Cannot contact any KDC" not in done.stderr

    def _environment(self) -> Mapping[str, str]:
        return {
            "PATH": _PATH,
            "LC_ALL": "C",
            "KRB5_CONFIG": str(self.config if hasattr(self, "config") else os.devnull),
            "KRB5_KDC_PROFILE": str(self._kdc_conf),
            "KRB5CCNAME": f"FILE:{self.folder}/none.cache",
        }

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [_program(program), *arguments],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(arguments)} failed: {done.stdout}{done.stderr}")


def _program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    assert found is not None, f"{name} is not there: see what_is_missing()"
    return found
