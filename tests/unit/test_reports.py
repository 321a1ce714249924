"""JSON, JUnit and Markdown of runs with hostile or huge logs; and the data inside the HTML."""

import base64
import html
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import junitparser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from quizmatrix.core.json import to_json
from quizmatrix.core.text import clean_line
from quizmatrix.model.finding import Finding, FindingKind
from quizmatrix.report.formats import Format, junit, markdown, render
from quizmatrix.report.formats import html as page
from quizmatrix.report.formats.excerpt import excerpt
from quizmatrix.report.formats.source import ReportSource, load
from quizmatrix.run import findings
from quizmatrix.run.reproduce import command_in
from quizmatrix.runs import directory
from tests.made_run import HOSTILE, SCRIPT, TRACE, boot_lines, handoff_run, hostile_run, make_run
from tests.unit.test_report import result


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ReportSource:
    return load(hostile_run(tmp_path_factory.mktemp("hostile") / "run"))


def text_of(form: Format, source: ReportSource) -> str:
    return b"".join(render(form, source)).decode()


def suites(source: ReportSource) -> dict[str, ET.Element]:
    root = ET.fromstring(text_of(Format.JUNIT, source))  # noqa: S314 - our own
    return {suite.attrib["name"]: suite for suite in root}


def test_json_is_results_json(source: ReportSource) -> None:
    assert text_of(Format.JSON, source) == (source.folder / directory.RESULTS).read_text()


def test_what_junit_makes_of_each_outcome(source: ReportSource) -> None:
    root = ET.fromstring(text_of(Format.JUNIT, source))  # noqa: S314 - our own
    assert {key: root.attrib[key] for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "11",
        "failures": "5",
        "errors": "2",
        "skipped": "1",
    }
    kinds = {
        suite.attrib["name"]: [[child.tag for child in case] for case in suite.findall("testcase")]
        for suite in root
    }
    assert kinds == {
        "6.1-x86_64": [[]],
        "6.1-s390x": [["failure"], ["failure"]],  # its two tests
        "6.1-ppc64": [["failure"]],
        "6.12-x86_64": [[], []],
        "6.12-s390x": [["failure"]],
        "6.12-ppc64": [["failure"]],
        "newest-x86_64": [["skipped"]],  # as expected
        "newest-s390x": [["error"]],
        "newest-ppc64": [["error"]],
    }
    panic = suites(source)["6.12-s390x"]
    (failure,) = panic.iter("failure")
    assert failure.attrib["message"] == "panicked: unable to handle page fault"
    assert (failure.text or "").startswith("[    2.000001] BUG: unable to handle page fault")
    properties = {one.attrib["name"]: one.attrib["value"] for one in panic.iter("property")}
    assert properties["kernel"] == "6.12"
    assert properties["arch"] == "s390x"
    assert properties["outcome"] == "panicked"


def test_junit_says_how_many_tests_it_has_no_names_of(tmp_path: Path) -> None:
    cell = result("6.1-s390x", "failed", subtests={"passed": 200_001, "failed": 4})
    tests = {cell.cell: {"a": "passed", "b": "failed"}}
    run = make_run(tmp_path / "run", {cell.cell: (cell, {})}, command=["t"], tests=tests)
    text = text_of(Format.JUNIT, load(run))
    assert '<property name="tests without a case" value="200003"' in text
    assert text.count("<testcase ") == 2


def test_junit_reads_with_the_library_it_is_written_with(source: ReportSource, tmp_path: Path) -> None:
    (tmp_path / "r.xml").write_text(text_of(Format.JUNIT, source))
    read = junitparser.JUnitXml.fromfile(str(tmp_path / "r.xml"))
    assert (read.tests, read.failures, read.errors, read.skipped) == (11, 5, 2, 1)
    read.update_statistics()
    assert (read.tests, read.failures, read.errors, read.skipped) == (11, 5, 2, 1)


def test_junit_is_xml_whatever_a_guest_writes(source: ReportSource) -> None:
    out = suites(source)["6.1-s390x"].findtext("system-out") or ""
    assert f"</script><script>{SCRIPT}</script>" in out
    assert "]]>&lt;<!--" in out
    assert not re.search("[\x00-\x08\x0b-\x1f]", text_of(Format.JUNIT, source))


@settings(deadline=None)  # no test of speed
@given(st.text())
def test_any_text_becomes_xml(text: str) -> None:
    element = ET.Element("x", {"a": junit._text(text)})
    element.text = junit._text(text)
    ET.fromstring(ET.tostring(element, encoding="utf-8"))  # noqa: S314 - our own


def test_a_cell_that_fails_beside_its_tests_has_a_case_of_its_own(tmp_path: Path) -> None:
    one = result("6.1-s390x", "panicked", subtests={"passed": 1})
    two = result("6.12-s390x", "failed", expected="failed", subtests={"failed": 1})
    run = make_run(
        tmp_path / "run",
        {one.cell: (one, {}), two.cell: (two, {})},
        command=["a\udcff\x1b", "b"],
        tests={one.cell: {"t": "passed"}, two.cell: {"t": "failed"}},
    )
    found = {
        name: [(case.attrib["name"], [child.tag for child in case]) for case in suite.iter("testcase")]
        for name, suite in suites(load(run)).items()
    }
    (test, command) = found["6.1-s390x"]
    assert test == ("t", [])
    assert command[1] == ["failure"]
    assert found["6.12-s390x"] == [("t", ["skipped"])]


def test_a_killed_run_gives_every_report(tmp_path: Path) -> None:
    run = hostile_run(tmp_path / "run", finished=False)
    events = (run / directory.EVENTS).read_bytes()
    (run / directory.RESULTS).unlink()
    # Killed while it wrote the result of its last cell.
    (run / directory.EVENTS).write_bytes(events[:-40])
    source = load(run)
    assert source.results.seconds is None
    assert len(source.cells) == 8
    assert "newest-ppc64 (running)" in source.unended_sentence
    assert source.unended_sentence in text_of(Format.MARKDOWN, source)
    assert json.loads(text_of(Format.JSON, source))["finished"] is None
    (error,) = suites(source)["newest-ppc64"].iter("error")
    assert "running when the run was cut off" in error.attrib["message"]
    assert embedded(text_of(Format.HTML, source))["data"]["unended"] == source.unended_sentence


def test_disks_that_were_handed_on(tmp_path: Path) -> None:
    source = load(handoff_run(tmp_path / "run"))
    bad, disks = "6.1-x86_64..6.1-s390x", f"{source.folder}/6.1-x86_64/disks/"
    text = text_of(Format.MARKDOWN, source)
    assert text.startswith("## ❌ 10 steps in ")
    assert "Command: <code>handoff: ./number write; ./number read</code>" in text
    assert "| written on | write | read on 6.1-x86_64 | read on 6.1-s390x |" in text
    assert "| 6.1-x86_64 | ✅ passed <sub>1.25s</sub> | ✅ passed <sub>1.25s</sub> | ❌ failed (1)" in text
    assert "| back on | from 6.1-x86_64 | from 6.1-s390x |\n| --- | --- | --- |\n| 6.1-x86_64 | ✅" in text
    assert f"Disks it was given: <code>{disks}</code>" in text
    found = suites(source)
    assert list(found) == [one.cell for one in source.cells]
    names = {name: [case.attrib["name"] for case in suite.iter("testcase")] for name, suite in found.items()}
    assert names["6.1-s390x"] == ["./number write"]
    assert names["6.1-s390x..6.1-x86_64"] == ["./number read"]
    properties = {one.attrib["name"]: one.attrib["value"] for one in found[bad].iter("property")}
    assert (properties["step"], properties["written_on"], properties["read_on"]) == (
        "read",
        "6.1-x86_64",
        "6.1-s390x",
    )
    (failure,) = found[bad].iter("failure")
    assert f"disks it was given: {disks}" in (failure.text or "")
    assert len(list(found[f"{bad}..6.1-x86_64"].iter("skipped"))) == 1
    data = embedded(text_of(Format.HTML, source))["data"]
    assert [grid["corner"] for grid in data["grids"]] == ["written on", "back on"]
    assert data["grids"][0]["rows"][0] == ["6.1-x86_64", ["6.1-x86_64", "6.1-x86_64..6.1-x86_64", bad]]
    (cell,) = (cell for cell in data["cells"] if cell["id"] == bad)
    assert ["disks", disks] in cell["facts"]


def test_a_killed_run_that_hands_disks_on(tmp_path: Path) -> None:
    run = handoff_run(tmp_path / "run", finished=False)
    (run / directory.RESULTS).unlink()
    events = (run / directory.EVENTS).read_bytes().splitlines(keepends=True)
    (run / directory.EVENTS).write_bytes(b"".join(events[:-1]))
    source = load(run)
    assert source.results.handoff is not None
    assert list(source.unended) == ["6.1-s390x..6.1-s390x..6.1-s390x"]
    assert "./number read" in text_of(Format.MARKDOWN, source)


def test_findings_take_the_place_of_consoles(tmp_path: Path) -> None:
    finding = Finding(
        kind=FindingKind.WARNING,
        title=f"WARNING: at x.c:3 `</script>` {SCRIPT}",
        line=3,
        block=[f"WARNING: at x.c:3 `</script>` {SCRIPT}", "```", " hello+0x1/0x2 [mod]", "the registers"],
        functions=["hello"],
        fingerprint="abc123abc123",
        count=2,
    )
    known = replace(finding, fingerprint="fff123abc123", allowed=True)
    splat = result("6.1-x86_64", "splat", detail="WARNING", findings=[finding.summary])
    failed = result("6.1-s390x", "failed", findings=[finding.summary])
    passed = result("6.1-ppc64", findings=[finding.summary, known.summary])
    files = {"console.log": TRACE, findings.FILE: to_json([finding, known]), "stdout": b"hi\n"}
    run = make_run(
        tmp_path / "run", {one.cell: (one, files) for one in (splat, failed, passed)}, command=["true"]
    )
    source = load(run)
    lines = [clean_line(finding.title), "  hello+0x1/0x2 [mod]", "fingerprint: abc123abc123 (warning)"]
    cells = {cell["id"]: cell for cell in embedded(text_of(Format.HTML, source))["data"]["cells"]}
    assert cells[splat.cell]["findings"] == [["warning 2 times", lines]]
    assert cells[splat.cell]["trace"] == []
    assert not cells[splat.cell]["opens"]
    assert cells[failed.cell]["opens"]
    assert [words for words, _ in cells[passed.cell]["findings"]] == [
        "warning 2 times",
        "warning 2 times, which the matrix allows",
    ]
    found = suites(source)
    assert (found[splat.cell].findtext("testcase/failure") or "").startswith("\n".join(lines))
    for cell in (failed, passed):
        told = found[cell.cell].findtext("testcase/system-out") or ""
        assert told.splitlines()[0] == f"{cell.cell} ({cell.outcome}): the kernel complained"
        assert told.splitlines()[-1].strip() == lines[-1]
    properties = {one.attrib["name"]: one.attrib["value"] for one in found[passed.cell].iter("property")}
    assert properties["finding fff123abc123"].startswith("warning: WARNING: at x.c:3")
    text = text_of(Format.MARKDOWN, source)
    assert "6.1-s390x (failed), 6.1-ppc64 (passed): the kernel complained" in text
    assert text.count("\n".join(lines)) == 2
    assert "frobnicate" not in text
    assert "hello" not in outside_of_fences(text)


def test_flaky_and_what_was_not_run_again_are_said_in_every_report(tmp_path: Path) -> None:
    flaky = "failed in the run before, from the same inputs"
    cells = [
        result("6.1-x86_64", flaky=flaky),
        result("6.1-s390x", earlier="20261101-120000-0001"),
        result("6.1-ppc64", "failed", flaky="lost in the attempt before", attempts=2),
    ]
    source = load(make_run(tmp_path / "run", {one.cell: (one, {}) for one in cells}, command=["true"]))
    sentences = [
        f"Flaky: 6.1-x86_64: {flaky}",
        "Flaky: 6.1-ppc64: lost in the attempt before",
        "* not run again: from 20261101-120000-0001",
    ]
    data = embedded(text_of(Format.HTML, source))["data"]
    assert data["remarks"] == sentences
    shown = [(cell["words"], [fact[1] for fact in cell["facts"]]) for cell in data["cells"]]
    assert [words for words, _ in shown] == ["passed (flaky)", "passed*", "failed (1), flaky"]
    assert flaky in shown[0][1]
    assert "from 20261101-120000-0001" in shown[1][1]
    text = text_of(Format.MARKDOWN, source)
    assert (
        "| 6.1 | ✅ passed (flaky) <sub>1.25s</sub> | ✅ passed&#42; <sub>1.25s</sub> | ❌ failed (1), flaky"
        in text
    )
    assert "\n\n".join(sentences) in html.unescape(text)
    found = suites(source)
    told = {name: suite.findtext("testcase/system-out") for name, suite in found.items()}
    assert told == {
        "6.1-x86_64": f"flaky: {flaky}",
        "6.1-s390x": "not run again: from 20261101-120000-0001",
        "6.1-ppc64": "flaky: lost in the attempt before",
    }
    assert "timestamp" in found["6.1-x86_64"].attrib
    assert "timestamp" not in found["6.1-s390x"].attrib
    properties = {one.attrib["name"]: one.attrib["value"] for one in found["6.1-x86_64"].iter("property")}
    assert properties["flaky"] == flaky


def outside_of_fences(text: str) -> str:
    """Markdown without its fenced code blocks, as CommonMark defines them."""
    kept, fence = [], ""
    for line in text.splitlines():
        run = re.match("`{3,}", line)
        if fence:
            if run and len(run[0]) >= len(fence) and not line.strip("`"):
                fence = ""
        elif run:
            fence = run[0]
        else:
            kept.append(line)
    assert not fence
    return "\n".join(kept)


class Tags(HTMLParser):
    """Collects the names of elements."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert not attrs
        self.names.add(tag)


def test_nothing_breaks_out_of_the_markdown(source: ReportSource) -> None:
    text = outside_of_fences(text_of(Format.MARKDOWN, source))
    tags = Tags()
    tags.feed(text)
    assert tags.names == {"code", "sub", "details", "summary", "b"}
    assert "`" not in text
    assert text.count("<details>") == text.count("</details>") == 6
    assert "](javascript" not in text
    # Every row of a table has as many cells as its head.
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert html.unescape(text).count(f"functional/<script>{SCRIPT}</script>|`x`") == 2


def test_what_markdown_says(source: ReportSource) -> None:
    text = text_of(Format.MARKDOWN, source)
    assert text.startswith("## ❌ 9 cells in ")
    assert "| 6.1 | ✅ passed <sub>1.25s</sub> | ❌ failed (3) <sub>1.25s</sub> |" in text
    assert "failed (1), expected" in text
    assert "Kernel panic - not syncing: Fatal exception" in text
    assert "- Fails only on s390x: functional" in text


@pytest.mark.parametrize("room", [0, 100, 600, 2000])
def test_markdown_fits(source: ReportSource, room: int) -> None:
    data = b"".join(markdown.render(source, room + 500))
    assert len(data) <= room + 500
    assert b"did not fit" in data


class Blocks(HTMLParser):
    """What an HTML parser finds in a page: its elements, and the texts of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.found: list[tuple[dict[str, str | None], str]] = []
        self.policy = ""
        self._open: dict[str, str | None] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        known = dict(attrs)
        assert not [name for name in known if name.startswith("on") or name == "style"]
        self._open = known if tag in ("script", "style") else None
        if known.get("http-equiv"):
            self.policy = known["content"] or ""

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.found.append((self._open, data))
            self._open = None


def embedded(text: str) -> dict[str, Any]:
    """The page's data, and the parts of each log."""
    blocks = Blocks()
    blocks.feed(text)
    return {
        str(attributes["id"]): json.loads(zlib.decompress(base64.b64decode(data, validate=True)))
        for attributes, data in blocks.found
        if attributes.get("id")
    }


def test_the_page_holds_no_markup_but_its_own(source: ReportSource) -> None:
    text = text_of(Format.HTML, source)
    blocks = Blocks()
    blocks.feed(text)
    assert not {"img", "svg", "iframe", "link", "base", "object"} & set(blocks.names)
    assert SCRIPT not in text.replace(html.escape(SCRIPT), "")
    assert "http://" not in text
    assert "https://" not in text
    assert blocks.policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in blocks.policy
    (style,) = [
        data for attributes, data in blocks.found if not attributes and "{" in data and "--page" in data
    ]
    (script,) = [data for attributes, data in blocks.found if not attributes and "use strict" in data]
    assert page._hash(style) in blocks.policy
    assert page._hash(script) in blocks.policy
    assert "innerHTML" not in script
    assert "eval(" not in script


def test_what_the_page_embeds(source: ReportSource) -> None:
    found = embedded(text_of(Format.HTML, source))
    data = found["data"]
    (grid,) = data["grids"]
    assert grid["columns"] == ["x86_64", "s390x", "ppc64"]
    assert grid["rows"][0] == ["6.1", ["6.1-x86_64", "6.1-s390x", "6.1-ppc64"]]
    cells = {cell["id"]: cell for cell in data["cells"]}
    assert cells["6.12-s390x"]["trace"][0].endswith(
        "BUG: unable to handle page fault for address: ffffffffc0ffee00"
    )
    log = cells["6.12-s390x"]["logs"][0]
    assert (log["name"], log["left_out"]) == ("console.log", 0)
    ((line, text),) = found[log["id"]]
    assert line == 1
    assert text.split("\n")[log["finding"] - 1].startswith("[    2.000001] BUG")
    assert "\x1b" not in text
    assert data["tests"]["rows"][1] == ["functional/b", "fp"]


def test_logs_share_what_room_there_is(source: ReportSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_ALL_LOGS", 4000)
    monkeypatch.setattr(page, "_LEAST_LOG", 100)
    found = embedded(text_of(Format.HTML, source))
    logs = [log for cell in found["data"]["cells"] for log in cell["logs"]]
    assert sum(log["size"] - log["left_out"] for log in logs) <= 4000 + 100 * len(logs)
    assert sum(log["left_out"] for log in logs) > 1000


def test_an_excerpt_has_both_ends_and_the_finding(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(boot_lines(50_000) + TRACE + boot_lines(50_000))
    found = excerpt(path, 48_000, by_console=True)
    assert found is not None
    assert found.finding == 50_001
    assert len(found.parts) == 3
    assert found.left_out == found.size - (48_000)
    whole = path.read_bytes().decode().replace("\r", "").split("\n")
    for part in found.parts:
        lines = part.text.split("\n")
        # The first and the last line may be incomplete.
        assert lines[1:-1] == whole[part.line : part.line + len(lines) - 2]
    middle = found.parts[1]
    assert middle.text.split("\n")[found.finding - middle.line].startswith("[    2.000001] BUG")
    assert found.parts[-1].text.endswith("boot line 49999\n")


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(8, 300), st.integers(0, 400) | st.none())
def test_spans_are_in_order_and_in_bounds(size: int, limit: int, finding: int | None) -> None:
    from quizmatrix.report.formats.excerpt import _spans

    spans = _spans(size, limit, min(finding, size - 1) if finding is not None else None)
    assert sum(end - start for start, end in spans) <= max(limit, min(size, limit))
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges)
    assert edges[0] == 0
    assert edges[-1] == size


def test_a_console_of_zeros(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    with path.open("wb") as file:
        file.write(b"the beginning\n")
        file.seek(50 << 20)
        file.write(b"\n" + TRACE)
    found = excerpt(path, 1 << 16, by_console=True)
    assert found is not None
    assert found.parts[0].text.startswith("the beginning\n")
    assert found.finding == 3
    assert "frobnicate" in found.parts[-1].text
    assert excerpt(tmp_path / "none", 100) is None
    (tmp_path / "empty").touch()
    assert excerpt(tmp_path / "empty", 100) is None
    assert excerpt(tmp_path, 100) is None


def test_an_older_run_has_no_record_of_its_start(source: ReportSource) -> None:
    events = source.folder / directory.EVENTS
    kept = events.read_bytes()
    try:
        events.write_bytes(kept.split(b"\n", 1)[1])
        assert load(source.folder).results == source.results
    finally:
        events.write_bytes(kept)


def test_the_command_that_repeats_a_cell(tmp_path: Path) -> None:
    assert command_in(tmp_path) == ""
    script = tmp_path / "reproduce.sh"
    script.write_text(
        "#!/bin/sh\n# The cell\n#\n#   cd /x && quizmatrix run -- 'a\n#   b'\n#\n# Below\nset -eu\n"
    )
    assert command_in(tmp_path) == "cd /x && quizmatrix run -- 'a\nb'"
    script.write_text("#!/bin/sh\n# The cell\ncd /x && exec quizmatrix run -- 'a\nb'\n")
    assert command_in(tmp_path) == "cd /x && quizmatrix run -- 'a\nb'"
    script.write_bytes(HOSTILE)
    assert command_in(tmp_path) == ""
