"""What real symbols of 6.1 are of, for the small kernel that is built here: docs/modules.md has the table.

The kernel's own `make olddefconfig` says whether it grants what is advised.
"""

import re
import shutil
from pathlib import Path

import anyio
import pytest

from quizmatrix.core import process
from quizmatrix.kernel import source
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.missing import sourcetree
from quizmatrix.kernel.missing.explain import Explainer, Explanation, Kind, Missed, option_words
from quizmatrix.kernel.missing.expression import NO
from quizmatrix.kernel.missing.switching import Configuration, values_of
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import load_arch
from quizmatrix.model.kconfig import read_config

# The option of each symbol, and what to type; an empty text: this kernel has it.
SYMBOLS = {
    "crc32c": ("LIBCRC32C", "-e LIBCRC32C"),
    "crc_t10dif": ("CRC_T10DIF", "-e CRC_T10DIF"),
    "lzo1x_decompress_safe": ("LZO_DECOMPRESS", "-e RD_LZO"),
    "zstd_decompress_dctx": ("ZSTD_DECOMPRESS", "-e RD_ZSTD"),
    "crypto_alloc_shash": ("CRYPTO_HASH2", "-e CRYPTO_BLAKE2B"),
    "drm_dev_register": ("DRM", "-e DRM"),
    "drm_atomic_helper_check": ("DRM_KMS_HELPER", "-e DRM,DRM_VKMS"),
    "video_device_alloc": ("VIDEO_DEV", "-e MEDIA_SUPPORT"),
    "__video_register_device": ("VIDEO_DEV", "-e MEDIA_SUPPORT"),
    "snd_card_new": ("SND", "-e SOUND,SND"),
    "usb_register_driver": ("USB", "-e USB_SUPPORT,USB"),
    "hid_hw_start": ("HID", "-e INPUT"),
    "i2c_transfer": ("I2C", "-e I2C"),
    "input_allocate_device": ("INPUT", "-e INPUT"),
    "backlight_device_register": ("BACKLIGHT_CLASS_DEVICE", "-e BACKLIGHT_CLASS_DEVICE"),
    "nf_register_net_hook": ("NETFILTER", "-e NETFILTER"),
    "xt_register_target": ("NETFILTER_XTABLES and CONFIG_NETFILTER", "-e NETFILTER,NETFILTER_XTABLES"),
    "ib_register_device": ("INFINIBAND", "-e INFINIBAND"),
    "power_supply_register": ("POWER_SUPPLY", "-e POWER_SUPPLY"),
    "regmap_read": ("REGMAP", "-e MFD_SYSCON"),
    "fuse_conn_put": ("FUSE_FS", "-e FUSE_FS"),
    "acpi_evaluate_object": ("", ""),
    "dm_register_target": ("", ""),
    "sysfs_create_group": ("", ""),
    "kallsyms_lookup_name": ("", ""),
}
X86_64 = load_arch("x86_64")


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    order = Order(arch=X86_64, tell=lambda _said: None, needs_tree=True)
    return anyio.run(source.obtain, "debian-source:6.1", order)


@pytest.fixture(scope="module")
def explainer(kernel: Kernel) -> Explainer:
    async def find() -> Explainer:
        found = await sourcetree.source_for(kernel, lambda _said: None, offline=True)
        return Explainer(found, read_config(kernel.config), kernel.record.version, "x86_64")

    return anyio.run(find)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_what_is_advised_is_granted(
    symbol: str, kernel: Kernel, explainer: Explainer, tmp_path: Path
) -> None:
    async def explain() -> Explanation:
        return await explainer.explain([Missed(kind=Kind.SYMBOL, name=symbol)])

    found = anyio.run(explain)
    option, typed = SYMBOLS[symbol]
    if not option:
        assert found.lines is None
        has = "exports it to no module" if symbol == "kallsyms_lookup_name" else "this kernel has it"
        assert has in found.reasons[0]
        return
    assert f"{symbol} is of CONFIG_{option} (" in found.reasons[0]
    assert found.lines is not None
    assert " ".join(option_words(found.lines)) == typed
    made = granted(kernel, found.lines, tmp_path)
    assert {name: made.get(name, NO) for name in found.lines} == found.lines
    assert all(Configuration(explainer.tree, made).value(one) > NO for one in found.conditions)


def granted(kernel: Kernel, lines: dict[str, int], folder: Path) -> dict[str, int]:
    """The configuration that the kernel's own tools make of this one with these lines."""
    tree = kernel.build_tree
    assert tree is not None
    text = kernel.config
    for name in lines:
        text = re.sub(rf"^(CONFIG_{name}=.*|# CONFIG_{name} is not set)\n", "", text, flags=re.MULTILINE)
    config = folder / ".config"
    config.write_text(text + "".join(f"CONFIG_{name}={'nmy'[level]}\n" for name, level in lines.items()))
    build = folder / "build"
    build.mkdir()
    argv = ["make", "-s", "-C", str(tree.source), f"O={build}", f"KCONFIG_CONFIG={config}", *tree.make]

    async def run() -> process.Completed:
        return await process.run([*argv, "olddefconfig"])

    done = anyio.run(run)
    assert done.status == 0, done.last_words
    shutil.rmtree(build)
    return values_of(read_config(config.read_text()))
