"""The key pairs of one guest for SSH."""

from __future__ import annotations

import shlex

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quizmatrix.core import paths

# In the guest: the folder of what is made here, and the configuration of sshd(8).
_FOLDER = "/run/quizmatrix/ssh"
_CONFIG = f"""\
HostKey {_FOLDER}/host_key
AuthorizedKeysFile {_FOLDER}/authorized_keys
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
PidFile none
AcceptEnv *
Subsystem sftp internal-sftp
"""


def _private(key: Ed25519PrivateKey) -> bytes:
    """A key as OpenSSH's private keys are written (PROTOCOL.key)."""
    encoding, kind = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    return key.private_bytes(encoding, kind, serialization.NoEncryption())


def _public(key: Ed25519PrivateKey) -> bytes:
    """The public key, as a line of authorized_keys."""
    encoding, kind = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(encoding, kind) + b"\n"


class Keys:
    """The key pairs of one guest: its server's, which the client checks, and the client's.

    client: the client's private key, and host: the server's public one, in OpenSSH's formats.
    """

    def __init__(self) -> None:
        """Makes new keys. On the host they are written nowhere."""
        client, host = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self.client = _private(client)
        self.host = _public(host)
        self._of_guest = [_CONFIG, _private(host).decode(), _public(client).decode()]

    @property
    def script(self) -> str:
        """The shell script that starts the guest's SSH server. Raises OSError if its file cannot be read."""
        return f"set -- {shlex.join(self._of_guest)}\n{(paths.data_dir('guest') / 'sshd').read_text()}"
