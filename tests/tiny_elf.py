"""Makes a program of 132 bytes, and headers of others."""

import struct

# Ends with 0: mov eax, 60; xor edi, edi; syscall.
_CODE = bytes.fromhex("b83c00000031ff0f05")
_BASE = 0x400000


def header(
    machine: int, *, bits: int = 64, byte_order: str = "little", kind: int = 2, code: int = 0
) -> bytes:
    """An ELF header (elf(5)); a 64-bit one is a whole program, with `code` after it."""
    order = ">" if byte_order == "big" else "<"
    ident = b"\x7fELF" + bytes([1 if bits == 32 else 2, 2 if byte_order == "big" else 1, 1]) + bytes(9)
    if bits == 32:
        return ident + struct.pack(f"{order}HH", kind, machine) + bytes(32)
    size = 120 + code
    rest = struct.pack(f"{order}HHIQQQIHHHHHH", kind, machine, 1, _BASE + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return ident + rest + struct.pack(f"{order}IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)


# It runs on x86_64.
X86_64 = header(62, code=len(_CODE)) + _CODE


def with_loader(*, bits: int, byte_order: str, loader: bytes = b"/lib/ld.so") -> bytes:
    """The beginning of a dynamically linked program: its second segment names its loader."""
    order = ">" if byte_order == "big" else "<"
    start = header(62, bits=bits, byte_order=byte_order)[:20]
    if bits == 32:
        rest = struct.pack(f"{order}IIIIIHHHHHH", 1, 0, 52, 0, 0, 52, 32, 2, 0, 0, 0)
        rest += bytes(32) + struct.pack(f"{order}IIIIIIII", 3, 116, 0, 0, len(loader) + 1, 0, 4, 1)
    else:
        rest = struct.pack(f"{order}IQQQIHHHHHH", 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
        rest += bytes(56) + struct.pack(f"{order}IIQQQQQQ", 3, 4, 176, 0, 0, len(loader) + 1, 0, 1)
    return start + rest + loader + b"\0"
