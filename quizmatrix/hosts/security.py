"""Who may join a cluster: certificates, and what is allowed without them.

An unauthenticated dask scheduler runs whatever it is sent. So everything that leaves this host is encrypted,
and both sides show a certificate of the same authority; without certificates only the loopback is used.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from quizmatrix.core import paths
from quizmatrix.core.errors import UnpreparedError, UsageError, host_error

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from distributed import Security

# The files, in a folder of the user's configuration or one that --certificates names.
FOLDER = "certificates"
AUTHORITY, CERTIFICATE, KEY = "authority.pem", "host.pem", "host.key"

# How long a certificate is valid.
_LASTS = datetime.timedelta(days=730)
_NAME = "quizmatrix"

TLS, PLAIN = "tls", "tcp"
LOOPBACK = "127.0.0.1"


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """The certificates of this host. folder: where they are."""

    folder: Path

    def security(self) -> Security:
        """What dask wants to know. UnpreparedError where a file is missing."""
        from distributed import Security

        files = {name: self.folder / name for name in (AUTHORITY, CERTIFICATE, KEY)}
        missing = [name for name, path in files.items() if not path.is_file()]
        if missing:
            raise UnpreparedError(
                f"there is no {', '.join(missing)} in {self.folder}",
                cause="hosts know each other by their certificates",
                next_step="quizmatrix worker --make-certificates, once. Then copy the folder to all hosts.",
            )
        pair = {"cert": str(files[CERTIFICATE]), "key": str(files[KEY])}
        given = {
            f"tls_{role}_{what}": path
            for role in ("client", "worker", "scheduler")
            for what, path in pair.items()
        }
        make: Any = Security  # dask's has no types
        made: Security = make(tls_ca_file=str(files[AUTHORITY]), require_encryption=True, **given)
        return made

    def context(self, *, server: bool = False) -> ssl.SSLContext:
        """For the blobs' HTTP. Names are not checked: hosts are known by the authority, as dask does it."""
        purpose = ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT
        context = ssl.SSLContext(purpose)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(self.folder / AUTHORITY)
            context.load_cert_chain(self.folder / CERTIFICATE, self.folder / KEY)
        except (OSError, ssl.SSLError) as error:
            raise UnpreparedError(
                f"the certificates in {self.folder} cannot be used", cause=str(error)
            ) from error
        return context


def certificates(folder: str | None = None) -> Certificates:
    """Those in a folder, by default in that of the user's configuration."""
    return Certificates(folder=Path(folder).absolute() if folder else paths.config_dir() / FOLDER)


@contextmanager
def from_stdin() -> Iterator[Certificates]:
    """Those that a submitter sends for one run, as a line of JSON on stdin; removed when the block ends.

    Raises UnpreparedError where they are not there.
    """
    import tempfile

    # Not a byte of what is behind it is read: the worker waits for the end of stdin.
    line = bytearray()
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    with tempfile.TemporaryDirectory(prefix="quizmatrix-") as name:
        folder = Path(name)
        try:
            texts = msgspec.json.decode(line, type=dict[str, str])
            for one in (AUTHORITY, CERTIFICATE, KEY):
                paths.write_atomic(folder / one, texts[one].encode(), mode=0o600)
        except (msgspec.MsgspecError, KeyError) as error:
            raise UnpreparedError(
                "there are no certificates on stdin", next_step="`run --on ssh:HOST` sends them."
            ) from error
        except OSError as error:
            raise host_error(f"write the certificates into {folder}", error) from error
        yield Certificates(folder=folder)


def check_address(address: str) -> bool:
    """Whether a scheduler's address is encrypted. UsageError where it is not, and is not this host's own."""
    scheme, divider, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    if not divider or scheme not in (TLS, PLAIN) or not host or not port.isdigit():
        raise UsageError(f"{address} is no address of a dask scheduler", next_step="Write tls://HOST:8786.")
    if scheme == PLAIN and not is_loopback(host):
        raise UsageError(
            f"{address} is not encrypted",
            cause="whoever reaches such a scheduler can run anything as its workers' users",
            next_step=f"Start it with certificates, and write tls://{rest}. docs/hosts.md says how.",
        )
    return scheme == TLS


def is_loopback(host: str) -> bool:
    """Whether a host is this one, by a name or an address that no other reaches."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def make_certificates(folder: Path) -> None:
    """Make an authority and a certificate that all hosts of a farm share. UsageError where there are some.

    The authority's own key is thrown away: nobody can add a host later, only make all anew.
    """
    made = (AUTHORITY, CERTIFICATE, KEY)
    if there := [name for name in made if (folder / name).exists()]:
        raise UsageError(
            f"{folder} has {', '.join(there)} already",
            next_step="Remove them, on all hosts, if you want others.",
        )
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _signed(authority_key, authority_key, f"{_NAME} authority", is_authority=True)
    certificate = _signed(key, authority_key, f"{_NAME} host", is_authority=False)
    pem = serialization.Encoding.PEM
    texts = {
        AUTHORITY: authority.public_bytes(pem),
        CERTIFICATE: certificate.public_bytes(pem),
        KEY: key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        for name, text in texts.items():
            paths.write_atomic(folder / name, text, mode=0o600)
    except OSError as error:
        raise host_error(f"write the certificates into {folder}", error) from error


def _signed(
    key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey, name: str, *, is_authority: bool
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{_NAME} authority")])
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # The clocks of hosts differ.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + _LASTS)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
        .sign(by, hashes.SHA256())
    )
