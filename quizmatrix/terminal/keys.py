"""The key pairs of one guest for SSH.

Made without asyncssh, whose import is slow and can wait until the guest starts.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# The configuration of the guest's sshd(8), and its folder in the run layer.
_FOLDER = ".quizmatrix/ssh"
_CONFIG = f"""\
HostKey /{_FOLDER}/host_key
AuthorizedKeysFile /{_FOLDER}/authorized_keys
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
        """Makes new keys. On the host they are written into the guest's run layer and nowhere else."""
        client, host = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self.client = _private(client)
        self.host = _public(host)
        self._of_guest = ((_private(host), "host_key", 0o600), (_public(client), "authorized_keys", 0o644))

    def write(self, layer: Path) -> None:
        """Put what the guest needs into its run layer; OSError where the disk does not take it."""
        folder = layer / _FOLDER
        folder.mkdir(parents=True)
        for data, name, mode in ((_CONFIG.encode(), "config", 0o644), *self._of_guest):
            (folder / name).touch(mode)
            (folder / name).write_bytes(data)
