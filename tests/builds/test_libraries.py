"""Libraries for an architecture that Debian does not have: built, and linked with; takes minutes."""

import os
import re
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from quizmatrix.build.zfs import sysroot
from quizmatrix.build.zfs.sysroot import Sysroot
from quizmatrix.core import process
from quizmatrix.core.jobserver import JobServer
from quizmatrix.model.arch import Arch, load_arch

ARCH = load_arch("ppc64")

# One call into each; the key is of RFC 6070.
PROGRAM = r"""
#include <blkid/blkid.h>
#include <libaio.h>
#include <openssl/evp.h>
#include <rpc/xdr.h>
#include <stdio.h>
#include <uuid/uuid.h>
#include <zlib.h>

int main(void)
{
    unsigned char key[20];
    uuid_t uuid;
    char data[4];
    int number = 258;
    XDR xdr;
    io_context_t context = 0;

    PKCS5_PBKDF2_HMAC_SHA1("password", 8, (const unsigned char *)"salt", 4, 4096, sizeof(key), key);
    for (unsigned i = 0; i < sizeof(key); i++)
        printf("%02x", key[i]);
    printf(" %lx", crc32(0, (const unsigned char *)"123456789", 9));
    xdrmem_create(&xdr, data, sizeof(data), XDR_ENCODE);
    printf(" %d%d%d", xdr_int(&xdr, &number), data[2], data[3]);
    uuid_generate(uuid);
    printf(" %d%d\n", uuid_is_null(uuid), blkid_known_fstype("ext4"));
    return number == 0 ? io_queue_init(1, &context) : 0;
}
"""
SAID = "4b007901b765489abead49d926f721d065a429c1 cbf43926 112 01\n"


async def obtain(arch: Arch) -> Sysroot:
    with closing(JobServer(process.usable_cpus())) as pool:
        return await sysroot.obtain(arch, None, pool, print)


@pytest.mark.timeout(1800)
def test_a_program_has_all_but_the_c_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    made = anyio.run(obtain, ARCH)
    names = sorted(path.name for path in (tmp_path / "cache/sysroots").iterdir())
    assert names == ["logs", made.folder.name]
    described = ["pkg-config", "--cflags", "--libs", "libcrypto", "zlib", "libtirpc", "uuid", "blkid"]
    told = subprocess.run(
        described, env=dict(os.environ) | made.environment, capture_output=True, text=True, check=True
    )
    source, program = tmp_path / "all.c", tmp_path / "all"
    source.write_text(PROGRAM)
    before = [*made.compiler.split(), *made.preprocessor.split(), *made.linker.split()]
    argv = [*before, "-o", str(program), str(source), *told.stdout.split(), "-laio"]
    subprocess.run(argv, check=True)
    said = subprocess.run(["readelf", "-hdW", program], capture_output=True, text=True, check=True).stdout
    assert "big endian" in said
    # A library with thread-local variables needs the loader.
    assert {"libc.so.6"} <= set(re.findall(r"\(NEEDED\).*\[(.+)\]", said)) <= {"libc.so.6", "ld64.so.1"}
    emulator = shutil.which("qemu-ppc64")
    if emulator is None:
        pytest.skip("needs qemu-user to run it")
    root = made.libraries[0].parent
    ran = subprocess.run([emulator, "-L", root, program], capture_output=True, text=True, check=True)
    assert ran.stdout == SAID
