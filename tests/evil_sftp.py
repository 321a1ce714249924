"""A hostile guest's SFTP server (version 3, draft-ietf-secsh-filexfer-02)."""

import struct
import sys

LINK, FILE, FOLDER, DEVICE = 0o120777, 0o104755, 0o040755, 0o020666
ENTRIES = [
    (b"twice", LINK),  # where the next one is to go
    (b"twice", FILE),
    (b"../escaped", FILE),
    (b"a/../../escaped", FILE),
    (b"", FILE),
    (b"..", FOLDER),
    (b"device", DEVICE),
    (b"out", LINK),
    (b"plain", FILE),
]
TARGETS = {b"out": b"/etc/passwd"}
CONTENT = b"evil\n"

INIT, OPEN, CLOSE, READ, LSTAT, FSTAT, OPENDIR, READDIR, STAT, READLINK = 1, 3, 4, 5, 7, 8, 11, 12, 17, 19


def text(data: bytes) -> bytes:
    """A string in the protocol's encoding."""
    return struct.pack(">I", len(data)) + data


def attributes(mode: int) -> bytes:
    """A packet with a false size."""
    return struct.pack(">IQI", 1 | 4, 1 << 40, mode)


def send(kind: int, body: bytes) -> None:
    """One packet."""
    sys.stdout.buffer.write(struct.pack(">IB", 1 + len(body), kind) + body)
    sys.stdout.buffer.flush()


def answer(kind: int, body: bytes, has_listed: set[bytes]) -> tuple[int, bytes]:
    """The type of the answer, and its content after the request's number."""
    name = body[4 : 4 + struct.unpack(">I", body[:4])[0]]
    base = name.rsplit(b"/", 1)[-1]
    if kind in (STAT, LSTAT, FSTAT):
        return 105, attributes(FOLDER if base == b"evil" else FILE)
    if kind in (OPEN, OPENDIR):
        has_listed.discard(name)
        return 102, text(name)
    if kind == READDIR and name not in has_listed:
        has_listed.add(name)
        listed = b"".join(text(entry) + text(entry) + attributes(mode) for entry, mode in ENTRIES)
        return 104, struct.pack(">I", len(ENTRIES)) + listed
    if kind == READLINK:
        return 104, struct.pack(">I", 1) + text(TARGETS.get(base, b"../victim")) + text(b"x") + attributes(
            LINK
        )
    if kind == READ and struct.unpack(">Q", body[4 + len(name) : 12 + len(name)])[0] < len(CONTENT):
        offset = struct.unpack(">Q", body[4 + len(name) : 12 + len(name)])[0]
        return 103, text(CONTENT[offset:])
    # SSH_FX_OK, or SSH_FX_EOF.
    return 101, struct.pack(">I", 0 if kind == CLOSE else 1) + text(b"") + text(b"")


def main() -> None:
    """Answer until the client goes away."""
    has_listed: set[bytes] = set()
    while head := sys.stdin.buffer.read(4):
        packet = sys.stdin.buffer.read(struct.unpack(">I", head)[0])
        if packet[0] == INIT:
            send(2, struct.pack(">I", 3))
            continue
        kind, body = answer(packet[0], packet[5:], has_listed)
        send(kind, packet[1:5] + body)


if __name__ == "__main__":
    main()
