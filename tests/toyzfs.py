"""A toy OpenZFS tree whose module is a real one, for tests with real guests."""

import shutil
from pathlib import Path

from quizmatrix.core import paths
from tests import linkedcache

TOY = Path(__file__).parent / "toy-zfs"
CELL = "6.1-x86_64"

# The device that the profile waits for, and a number by which guests tell whose module it is.
_MODULE = """#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
static const struct file_operations operations;
static struct miscdevice zfs = {{ .minor = MISC_DYNAMIC_MINOR, .name = "zfs", .fops = &operations }};
static int number = {number};
module_param(number, int, 0444);
module_misc_device(zfs);
MODULE_LICENSE("GPL");
"""

# What the toy's configure does besides, for a module that Kbuild compiles.
_WITH_KBUILD = """
for word; do
    case $word in
        --with-linux-obj=*) folder=${word#*=} ;;
        KERNEL_CC=*) compiler="CC=${word#*=}" ;;
    esac
done
cat >module/Makefile <<END
obj-m := zfs.o
modules modules_install:
	@echo \\$@ >>../../compiled
	\\$(MAKE) -C $folder M=\\$(CURDIR) $compiler \\$@
END
"""


def module(number: int) -> str:
    """The source of the module; guests read the number in /sys/module/zfs/parameters."""
    return _MODULE.format(number=number)


def make_tree(place: Path) -> Path:
    """Make a tree, of which `configure` is not in a repository, as with OpenZFS's."""
    shutil.copytree(TOY, place)
    with (place / "configure").open("a") as file:
        file.write(_WITH_KBUILD)
    (place / "configure").rename(place / "configure.ac")
    (place / "autogen.sh").write_text("cp configure.ac configure && chmod +x configure\n")
    (place / ".gitignore").write_text("configure\nrepro.sh\n")
    return place


def own_cache(place: Path) -> Path:
    """A cache with what is in the user's, but OpenZFS."""
    return linkedcache.make(paths.cache_dir(), place, without=("build-layers", "zfs"))
