"""What a module misses, and which options of the kernel have it: rules on a small made-up source."""

from pathlib import Path

import anyio
import pytest

from quizmatrix.build import output
from quizmatrix.build.module.missing import missed_in, refused_in
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.core.version import KernelVersion
from quizmatrix.kernel.missing.explain import Explainer, Explanation, Kind, Missed, option_words
from quizmatrix.kernel.missing.expression import Equal, Name, Not, Unknown, parse, parse_c
from quizmatrix.kernel.missing.kbuild import condition_of
from quizmatrix.kernel.missing.options import OptionTree
from quizmatrix.kernel.missing.search import Source
from quizmatrix.kernel.missing.switching import Configuration

FILES = {
    "Kconfig": """
source "arch/$(SRCARCH)/Kconfig"
if-success = $(shell,{ $(1); } && echo "$(2)")
source "drivers/Kconfig"
menuconfig NET
	bool "Networking"
if NET
config FILTER
	tristate "Filters"
	depends on !OLD_FILTER
	help
		config NOT_AN_OPTION
		depends on NOTHING

		if this is read as a condition, FILTER has it.
config TABLES
	tristate "Tables"
	default m if ADVANCED=n
	depends on FILTER && $(cc-option,-mtable $(X))
config ADVANCED
	bool "Advanced"
	default y
	depends on FILTER
endif
config OLD_FILTER
	bool "The old filters"
config TRIM_UNUSED_KSYMS
	bool "Trim"
config MODULES
	bool
	modules
	default y
""",
    "arch/x86/Kconfig": "config X86\n\tdef_bool y\n",
    "arch/s390/Kconfig": 'config S390\n\tdef_bool y\nconfig CHANNELS\n\tbool "Channels"\n',
    "drivers/Kconfig": """
menu "Drivers"
	depends on X86 || S390
config CORE
	tristate
config BIG
	tristate "A big driver"
	select CORE
	select FIRMWARE
	select COMMON
	select CLOCK
	select PHY
	select LIGHT
	select REGMAP
config SMALL
	tristate "A small driver"
	depends on BUS
	select CORE
config BUS
	bool "A bus"
config COMPILE_TEST
	bool "Everything"
config TESTED
	bool "For tests alone"
	depends on COMPILE_TEST
	select HIDDEN
config HIDDEN
	bool
config FIRMWARE
	tristate
config COMMON
	tristate
config CLOCK
	bool
config PHY
	bool
config LIGHT
	bool
config REGMAP
	bool
endmenu
""",
    "Kbuild": "obj-y += lib/ drivers/\nobj-$(CONFIG_NET) += net/\n",
    "drivers/Makefile": "obj-y += core/\nobj-$(CONFIG_BUS) += bus/deep/\n",
    "drivers/core/Makefile": """
core-y := main.o \\
	more.o
core-$(CONFIG_BUS) += bus.o # with a bus
far-list := far.o
core-objs += $(far-list)
obj-$(CONFIG_CORE) += core.o
ifeq ($(CONFIG_BUS),y)
obj-y += always.o
else
obj-$(CONFIG_HIDDEN) += never.o
endif
""",
    "drivers/core/main.c": "EXPORT_SYMBOL_GPL(core_register);\n",
    "drivers/core/bus.c": "EXPORT_SYMBOL_NS(core_bus, CORE);\n",
    "drivers/core/far.c": "EXPORT_SYMBOL(core_far);\n",
    "drivers/core/never.c": "EXPORT_SYMBOL(hidden_thing);\n",
    "drivers/bus/deep/Makefile": "obj-y += bus.o\n",
    "drivers/bus/deep/bus.S": "EXPORT_SYMBOL(bus_asm)\n",
    "net/Makefile": "obj-$(CONFIG_TABLES) += tables.o\nobj-$(subst m,y,$(CONFIG_FILTER)) += filter.o\n",
    "net/tables.c": "EXPORT_SYMBOL(table_add);\nEXPORT_TRACEPOINT_SYMBOL_GPL(table_hit);\n",
    "net/filter.c": "EXPORT_SYMBOL(filter_add);\n",
    "lib/Makefile": "lib-y := text.o\n",
    "lib/text.c": "int text_find(const char *text)\n{\n}\nint text_here(void)\n{\n}\n"
    "EXPORT_SYMBOL(text_here);\n#ifdef CONFIG_NET\nEXPORT_SYMBOL(text_net);\n#endif\n",
    "arch/s390/kernel/Makefile": "obj-y += channel.o\n",
    "arch/s390/kernel/channel.c": "EXPORT_SYMBOL(channel_open);\n",
    "arch/s390/include/asm/channel.h": "int channel_open(void);\n",
    "arch/x86/include/asm/msr.h": "int msr_read(int which);\n",
    "include/linux/filter.h": """#ifndef _FILTER_H
#define _FILTER_H
struct filter {
	int size;
#if defined(CONFIG_TABLES) || defined(CONFIG_TABLES_MODULE)
	struct table *table;
#endif
};
#if IS_ENABLED(CONFIG_FILTER)
extern int
filter_add(struct filter *filter);
#define filter_for_each(filter) for (;;)
#else
static inline int filter_none(void) { return filter_other(0); }
#endif
enum filter_kind {
	FILTER_A,
#ifdef CONFIG_NET
	FILTER_NET = 4,
#endif
};
#endif
""",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def explained(tree: Path, *missed: Missed, arch: str = "x86", **config: str) -> Explanation:
    explainer = Explainer(Source(tree=tree, srcarch=arch), config, "6.1.9", arch)

    async def explain() -> Explanation:
        return await explainer.explain(missed)

    return anyio.run(explain)


def symbol(name: str) -> Missed:
    return Missed(kind=Kind.SYMBOL, name=name)


def name(text: str) -> Missed:
    return Missed(kind=Kind.NAME, name=text)


X86 = {"X86": "y", "MODULES": "y"}


@pytest.mark.parametrize(
    ("missing", "option", "words"),
    [
        # In a composite object, whose list goes on in the next line; of an option without a prompt, which the
        # driver switches on that brings the least else.
        ("core_register", "CONFIG_CORE (drivers/core/main.c)", ["-e", "BUS,SMALL"]),
        ("core_bus", "CONFIG_BUS and CONFIG_CORE (drivers/core/bus.c)", ["-e", "BUS,SMALL"]),
        ("core_far", "CONFIG_CORE (drivers/core/far.c)", ["-e", "BUS,SMALL"]),
        # An assembler file two folders below the makefile that names its folder.
        ("bus_asm", "CONFIG_BUS (drivers/bus/deep/bus.S)", ["-e", "BUS"]),
        # ADVANCED=y comes by default, so that TABLES does not.
        ("table_add", "CONFIG_TABLES and CONFIG_NET (net/tables.c)", ["-e", "NET,FILTER,TABLES"]),
        ("__tracepoint_table_hit", "CONFIG_TABLES and CONFIG_NET", ["-e", "NET,FILTER,TABLES"]),
        ("filter_add", "CONFIG_FILTER and CONFIG_NET (net/filter.c)", ["-e", "NET,FILTER"]),
        ("text_net", "CONFIG_NET (lib/text.c)", ["-e", "NET"]),
    ],
)
def test_the_options_of_a_symbol(tree: Path, missing: str, option: str, words: list[str]) -> None:
    found = explained(tree, symbol(missing), **X86)
    assert option in found.reasons[0]
    assert found.lines is not None
    assert option_words(found.lines) == words


def test_several_symbols_are_grouped_and_asked_for_at_once(tree: Path) -> None:
    found = explained(tree, *map(symbol, ("core_far", "bus_asm", "core_register", "filter_add")), **X86)
    assert [reason.partition(" (")[0] for reason in found.reasons] == [
        "core_far and core_register are of CONFIG_CORE",
        "bus_asm is of CONFIG_BUS",
        "filter_add is of CONFIG_FILTER and CONFIG_NET",
    ]
    assert found.lines is not None
    assert sorted(found.lines) == ["BUS", "FILTER", "NET", "SMALL"]


def test_what_no_option_gives(tree: Path) -> None:
    """Not exported, not there at all, of another architecture, for tests alone, and trimmed."""
    missed = map(symbol, ("text_find", "text_none", "hidden_thing"))
    not_exported, nowhere, hidden = explained(tree, *missed, **X86).reasons
    assert not_exported == "lib/text.c defines text_find, and 6.1.9 exports it to no module"
    assert nowhere == "nothing in 6.1.9 exports text_none"
    assert hidden.endswith("which this kernel leaves out; nothing switches it on there")
    other = explained(tree, symbol("channel_open"), name("channel_open"), **X86)
    assert other.reasons[0] == "nothing in 6.1.9 exports channel_open"
    assert (other.lines, other.strangers) == (None, 1)
    trimmed = explained(tree, symbol("text_here"), **X86, TRIM_UNUSED_KSYMS="y")
    assert "-d TRIM_UNUSED_KSYMS" in trimmed.reasons[0]


def test_an_option_that_excludes_another_is_switched_off(tree: Path) -> None:
    found = explained(tree, symbol("filter_add"), **X86, NET="y", OLD_FILTER="y")
    assert found.lines is not None
    assert option_words(found.lines) == ["-e", "FILTER", "-d", "OLD_FILTER"]


@pytest.mark.parametrize(
    ("missed", "reason"),
    [
        (name("filter_add"), "filter_add is of CONFIG_FILTER (include/linux/filter.h)"),
        (name("filter_for_each"), "filter_for_each is of CONFIG_FILTER (include/linux/filter.h)"),
        (name("FILTER_NET"), "FILTER_NET is of CONFIG_NET (include/linux/filter.h)"),
        (name("FILTER_A"), "include/linux/filter.h declares FILTER_A: does the module include it?"),
        # It is called there, not declared.
        (name("filter_other"), "no header of 6.1.9 declares filter_other"),
        (
            Missed(kind=Kind.MEMBER, struct="filter", name="table"),
            "filter.table is of CONFIG_TABLES (include/linux/filter.h)",
        ),
        (
            Missed(kind=Kind.MEMBER, struct="filter", name="colour"),
            "struct filter (include/linux/filter.h) has no colour in 6.1.9",
        ),
        (Missed(kind=Kind.STRUCT, name="sieve"), "no header of 6.1.9 declares struct sieve"),
        (Missed(kind=Kind.HEADER, name="asm/channel.h"), "<asm/channel.h> is only for s390"),
        (Missed(kind=Kind.HEADER, name="asm/msr.h"), "arch/x86/include/asm/msr.h is there"),
        (Missed(kind=Kind.HEADER, name="linux/none.h"), "6.1.9 has no <linux/none.h>"),
    ],
)
def test_what_the_compiler_misses(tree: Path, missed: Missed, reason: str) -> None:
    assert explained(tree, missed, **X86).reasons[0].startswith(reason)


def test_a_source_that_leads_out_of_its_folder_or_in_circles(tree: Path) -> None:
    (tree / "Kconfig").write_text('source "../outside"\nsource "Kconfig"\nconfig A\n\tbool "a"\n')
    (tree.parent / "outside").write_text('config B\n\tbool "b"\n')
    assert set(OptionTree(tree, "x86").entries) == {"A"}


def test_defaults_count_only_where_an_option_could_not_be_set_before(tree: Path) -> None:
    now = Configuration(OptionTree(tree, "x86"), {"X86": 2, "NET": 2})
    made = {option: level for option, level in now.with_lines({"FILTER": 1}).values.items() if level}
    assert made == {"X86": 2, "NET": 2, "FILTER": 1, "ADVANCED": 2}
    assert now.with_lines({"SMALL": 2}).values.get("SMALL") is None


def test_conditions_are_read() -> None:
    assert parse_c("ifdef", "CONFIG_A") == Equal("A", 2)
    assert parse_c("ifndef", "_LINUX_A_H") == Unknown()
    assert parse_c("if", "!IS_ENABLED(CONFIG_A)") == Not(Name("A"))
    assert parse_c("if", "BITS_PER_LONG == 64") == Unknown()
    assert parse("$(success,$(CC) $(a)(b) -c)") == Unknown()
    assert parse("A!=n") == Equal("A", 0, True)
    assert parse("((((") == Unknown()


def test_a_file_that_no_makefile_names(tree: Path) -> None:
    assert condition_of(tree, "lib/other.c", "x86") is None


OUTPUT = """\
/w/a.c:4:2: error: implicit declaration of function ‘i2c_add’; did you mean ‘i2c_del’? [-Werror]
/w/a.c:5:2: error: 'FOO_BAR' undeclared (first use in this function)
/w/a.c:6:1: error: unknown type name 'foo_t'
/w/a.c:7:3: error: 'struct task_struct' has no member named 'numa_faults'
/w/a.c:7:3: error: no member named 'x' in 'struct y'
/w/a.c:8:3: error: invalid use of undefined type ‘struct foo’
/w/a.c:9:3: error: call to undeclared function 'clang_fn'; ISO C99 and later do not support implicit
/w/a.c:2:10: fatal error: linux/ddcci.h: No such file or directory
ERROR: modpost: "crc32c" [/w/a.ko] undefined!
ERROR: modpost: "crc32c" [/w/b.ko] undefined!
"""


def test_what_compilers_and_modpost_print() -> None:
    assert [one.text for one in missed_in(OUTPUT)] == [
        *("crc32c", "i2c_add", "clang_fn", "FOO_BAR", "foo_t", "struct foo", "linux/ddcci.h"),
        *("task_struct.numa_faults", "y.x"),
    ]


def test_what_modpost_refuses() -> None:
    said = (
        "ERROR: modpost: GPL-incompatible module a.ko uses GPL-only symbol 'core_register'\n"
        "ERROR: modpost: module a uses symbol core_bus from namespace CORE, but does not import it.\n"
    )
    old, new = (refused_in(said, KernelVersion(text)) for text in ("6.12", "6.13"))
    assert old[0].startswith("core_register is exported to GPL modules only")
    assert (old[1], new[1]) == (
        "core_bus is of a namespace: MODULE_IMPORT_NS(CORE); in a",
        'core_bus is of a namespace: MODULE_IMPORT_NS("CORE"); in a',
    )


def test_a_line_that_only_some_cells_have_names_them() -> None:
    """Cells of two kernels have the same error and different advice."""
    said = output.explain(
        (
            cell,
            UnpreparedError("no module", cause="x undefined", next_step=f"x is of CONFIG_X\n  Add `{words}`"),
        )
        for cell, words in (("6.1-x86_64", "-e X"), ("6.1-s390x", "-e PCI,X"))
    )
    assert said.splitlines() == [
        "6.1-x86_64, 6.1-s390x: no module: x undefined",
        "  x is of CONFIG_X",
        "  6.1-x86_64: Add `-e X`",
        "  6.1-s390x: Add `-e PCI,X`",
    ]


def test_a_header_out_of_the_source(tree: Path) -> None:
    (tree.parent / "outside.h").touch()
    assert Source(tree=tree, srcarch="x86").headers_named("../../outside.h") == []
