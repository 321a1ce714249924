"""The HTML report in a real browser: hostile logs execute nothing, and its controls work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from quizmatrix.core.json import to_json
from quizmatrix.model.finding import Finding, FindingKind
from quizmatrix.report.formats import Format, render
from quizmatrix.report.formats.source import load
from quizmatrix.run import findings
from tests.made_run import HOSTILE, TRACE, boot_lines, handoff_run, hostile_run, make_run
from tests.unit.test_report import result

pytestmark = pytest.mark.timeout(180)  # a browser on a busy machine

MIB = 1 << 20
PHONE = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2, "is_mobile": True}


def written(run: Path) -> Path:
    path = run.with_suffix(".html")
    with path.open("wb") as file:
        file.writelines(render(Format.HTML, load(run)))
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(hostile_run(tmp_path_factory.mktemp("hostile") / "run"))


def show(page: Page, report: Path, fragment: str = "") -> None:
    """Show a report in a fresh document and wait until it is complete."""
    page.goto("about:blank")
    page.goto(f"{report.absolute().as_uri()}#{fragment}")
    page.locator("html[data-ready=yes]").wait_for(state="attached")


def shown(page: Page, selector: str) -> list[str]:
    """The texts of the elements that can be seen."""
    texts: list[str] = page.locator(selector).evaluate_all(
        "all => all.filter(one => one.checkVisibility()).map(one => one.innerText)"
    )
    return texts


def wait_for(page: Page, condition: str) -> None:
    """Wait until an expression is true in the page.

    Playwright's wait_for_function evaluates text again and again, which the report's policy forbids.
    """
    page.evaluate(
        f"new Promise(done => {{ (function look() {{ ({condition}) ? done() : setTimeout(look, 20) }})() }})"
    )


def wait_for_target(page: Page) -> None:
    """Wait until the line that was asked for is marked."""
    page.locator(".target").wait_for(state="attached")


def wait_for_search(page: Page, text: str) -> None:
    expect(page.locator("html")).to_have_attribute("data-searched", text)


def open_everything(page: Page) -> None:
    """Unfold all there is, and wait until all logs are unpacked."""
    page.evaluate("document.querySelectorAll('details.cell').forEach(one => { one.open = true; })")
    wait_for(
        page, "[...document.querySelectorAll('details.cell')].every(one => one.querySelector('.inside'))"
    )
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    wait_for(page, "[...document.querySelectorAll('details.log pre')].every(one => one.textContent)")


def test_the_grid(page: Page, hostile: Path) -> None:
    show(page, hostile)
    assert page.evaluate("document.getElementById('summary').innerText").startswith("9 cells in ")
    assert shown(page, ".grid thead th") == ["kernel", "x86_64", "s390x", "ppc64"]
    assert shown(page, ".grid tbody th") == ["6.1", "6.12", "newest (7.2.13)"]
    squares = [text.split() for text in shown(page, ".grid button")]
    assert [words[1] for words in squares] == [
        "passed", "failed", "timed-out", "passed", "panicked", "splat", "failed", "unprepared", "lost",
    ]  # fmt: skip
    assert squares[6][2:4] == ["(1),", "expected"]


def test_hostile_logs_are_only_text(page: Page, hostile: Path) -> None:
    show(page, hostile)
    elements = "[...document.querySelectorAll('*')].map(one => one.tagName)"
    open_everything(page)
    logs = "\n".join(shown(page, "details.log pre"))
    for line in HOSTILE.decode(errors="replace").split("\n")[:4]:
        assert line in logs
    assert "\x1b" not in logs
    assert not {"IMG", "SVG", "IFRAME", "A"} & {name.upper() for name in page.evaluate(elements)}
    assert page.evaluate("document.querySelectorAll('script:not([type])').length") == 1
    assert page.evaluate("document.querySelectorAll('style').length") == 1


def test_the_policy_would_stop_what_got_through(
    page: Page, hostile: Path, said: list[str], asked: list[str]
) -> None:
    show(page, hostile)
    page.evaluate(ATTACK)
    wait_for(page, "window.refused.size === 3")
    assert page.evaluate("[...window.refused].sort()") == ["img-src", "script-src-attr", "script-src-elem"]
    assert page.evaluate("document.title").startswith("quizmatrix ")
    show(page, hostile)
    assert said
    assert "data:," in asked
    said.clear()
    asked.remove("data:,")


# What the page's script never does.
ATTACK = """
(() => {
  window.refused = new Set();
  document.addEventListener("securitypolicyviolation", (event) => refused.add(event.effectiveDirective));
  const bad = document.createElement("div");
  bad.innerHTML = '<img src="data:," onerror="document.title=1"><a onclick="document.title=1">x</a>';
  const script = document.createElement("script");
  script.textContent = "document.title=1";
  document.body.append(bad, script);
  bad.querySelector("a").click();
})()
"""


def test_filters(page: Page, hostile: Path) -> None:
    show(page, hostile, "outcome=failed,panicked&arch=s390x")
    assert shown(page, "details.cell > summary strong") == ["6.1-s390x", "6.12-s390x"]
    assert shown(page, ".grid thead th") == ["kernel", "s390x"]
    assert shown(page, ".grid tbody th") == ["6.1", "6.12"]
    assert shown(page, "#outcomes [aria-pressed=true]") == ["✗ failed 2", "‼ panicked 1"]
    page.locator("[data-outcome=failed]").click()
    expect(page).not_to_have_url(re.compile("#.*failed"))
    assert shown(page, "details.cell > summary strong") == ["6.12-s390x"]
    show(page, hostile)
    page.locator("#kernel").select_option("newest")
    expect(page).to_have_url(re.compile("#.*kernel=newest"))
    assert shown(page, ".grid tbody th") == ["newest (7.2.13)"]
    page.locator("#text").fill("unprep")
    expect(page).to_have_url(re.compile("#.*text=unprep"))
    assert shown(page, "details.cell > summary strong") == ["newest-s390x"]
    show(page, hostile, "text=functional/b")
    assert shown(page, "#tests-table tbody th") == ["functional/b"]


def test_the_search_finds_and_jumps(page: Page, hostile: Path) -> None:
    show(page, hostile, "search=needle")
    assert shown(page, "#found-title") == ["1 line in 1 log"]
    (hit,) = shown(page, "#hits button")
    assert hit.startswith("6.1-s390x · stdout · line 9")
    assert shown(page, "#hits mark") == ["needle"]
    page.locator("#hits button").click()
    wait_for_target(page)
    assert shown(page, ".target") == ["the needle in stdout"]
    assert shown(page, ".target mark") == ["needle"]
    page.locator("#search").fill("BOOT LINE 29")
    wait_for_search(page, "BOOT LINE 29")
    assert shown(page, "#found-title") == ["11 lines in 1 log"]
    for text, title in ((".*(", "Not found in the logs that this report has"), ("", "")):
        page.locator("#search").fill(text)
        wait_for_search(page, text)
        assert "".join(shown(page, "#found-title")) == title


def test_the_keyboard(page: Page, hostile: Path) -> None:
    show(page, hostile)
    page.keyboard.press("/")
    page.keyboard.type("needle")
    wait_for_search(page, "needle")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.press("Enter")
    wait_for_target(page)
    assert page.evaluate("location.hash") == "#search=needle"


def test_a_panic_is_shown_where_it_begins(page: Page, hostile: Path) -> None:
    show(page, hostile, "cell=6.12-s390x")
    assert "BUG: unable to handle page fault" in shown(page, "pre.trace")[0]
    page.evaluate("document.querySelector('details.log').open = true")
    wait_for_target(page)
    assert shown(page, ".target")[0].startswith("[    2.000001] BUG")


def test_a_console_of_50_megabytes(page: Page, tmp_path: Path) -> None:
    run = tmp_path / "run"
    one = result("6.12-s390x", "panicked", detail="x")
    make_run(run, {one.cell: (one, {"console.log": boot_lines(100) + HOSTILE})}, command=["true"])
    console = run / one.folder / "console.log"
    noise = b"[    1.000000] " + b"noise " * 200 + b"\n"
    with console.open("ab") as file:
        while file.tell() < 50 * MIB:
            file.write(noise * 1000)
        file.write(TRACE + b"the very end\n")
    report = written(run)
    assert report.stat().st_size < MIB
    show(page, report, "search=the+very+end")
    assert shown(page, "#found-title") == ["1 line in 1 log"]
    assert "51.0 MiB, of which 256 KiB are here" in shown(page, "details.log > summary")[0]
    page.evaluate("document.querySelector('details.log').open = true")
    wait_for_target(page)
    assert shown(page, ".target")[0].startswith("[    2.000001] BUG")
    (cut,) = shown(page, ".cut")
    assert cut.startswith("Not in this report: what lies between (lines ")


def test_many_cells_and_tests(page: Page, tmp_path: Path) -> None:
    cells = {}
    tests = {}
    for number in range(20):
        for arch in ("x86_64", "s390x", "ppc64"):
            bad = arch != "x86_64" and number % 2
            one = result(f"6.{number}-{arch}", "failed" if bad else "passed", subtests={"passed": 1})
            cells[one.cell] = (one, {"stdout": b"output\n" * 100})
            tests[one.cell] = {f"t{test}": "failed" if bad and test % 2 else "passed" for test in range(500)}
    show(page, written(make_run(tmp_path / "run", cells, command=["true"], tests=tests)))
    assert len(shown(page, ".grid button")) == 60
    assert shown(page, "#tests-title") == ["Tests that failed or differ: 250"]
    assert len(shown(page, "#tests-table tbody tr")) == 100
    page.locator("#tests-more").click()
    assert len(shown(page, "#tests-table tbody tr")) == 250


def test_disks_that_were_handed_on(page: Page, tmp_path: Path) -> None:
    show(page, written(handoff_run(tmp_path / "run")))
    heads = ["written on", "write", "read on 6.1-x86_64", "read on 6.1-s390x"]
    home = ["back on", "from 6.1-x86_64", "from 6.1-s390x"]
    assert shown(page, ".grid thead th") == heads + home
    assert len(shown(page, ".grid button")) == 10
    assert shown(page, "#bad-title") == ["2 steps not as expected"]
    page.locator("#text").fill("no pool")
    expect(page.locator("#good")).to_be_hidden()
    assert shown(page, ".grid thead th") == ["written on", "read on 6.1-s390x"]
    assert [words.split()[1] for words in shown(page, ".grid button")] == ["failed"]
    page.locator(".grid button:not(.filtered)").click()
    expect(page.locator(":focus")).to_contain_text("6.1-x86_64..6.1-s390x")


def test_findings_flaky_and_what_was_not_run_again(page: Page, tmp_path: Path) -> None:
    finding = Finding(
        kind=FindingKind.WARNING,
        title="WARNING: at x.c:3 <script>document.title='pwned'</script>",
        line=3,
        block=["WARNING: at x.c:3 <script>document.title='pwned'</script>", " hello+0x1/0x2 [mod]"],
        functions=["hello"],
        fingerprint="abc123abc123",
    )
    cells = [
        result("6.1-x86_64", "splat", detail="WARNING", findings=[finding.summary]),
        result("6.1-s390x", flaky="failed in the run before, from the same inputs"),
        result("6.1-ppc64", earlier="20261101-120000-0001"),
    ]
    files = {"console.log": TRACE, findings.FILE: to_json([finding])}
    run = make_run(tmp_path / "run", {one.cell: (one, files) for one in cells}, command=["true"])
    show(page, written(run))
    assert shown(page, "#remarks p") == [
        "Flaky: 6.1-s390x: failed in the run before, from the same inputs",
        "* not run again: from 20261101-120000-0001",
    ]
    squares = [" ".join(text.split()[1:-1]) for text in shown(page, ".grid button")]
    assert squares == ["splat", "passed (flaky)", "passed*"]
    # The only cell that is not as expected is open.
    (trace,) = shown(page, "pre.trace")
    assert trace.splitlines() == [
        finding.title,
        "  hello+0x1/0x2 [mod]",
        "fingerprint: abc123abc123 (warning)",
    ]
    assert "frobnicate" not in trace


def test_a_run_that_was_killed_before_any_cell_ended(page: Page, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {}, command=["true"], finished=False)
    show(page, written(run))
    assert shown(page, ".grid") == []


@pytest.mark.parametrize(
    "screen", [PHONE | {"color_scheme": scheme} for scheme in ("light", "dark")], ids=["light", "dark"]
)
def test_a_phone(page: Page, hostile: Path, screen: dict[str, Any]) -> None:
    show(page, hostile, "search=the")
    open_everything(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    # The sizes of elements that can be touched.
    low = "[...document.querySelectorAll('button, input, select')].filter(one => one.checkVisibility())"
    assert page.evaluate(f"Math.min(...{low}.map(one => one.getBoundingClientRect().height))") >= 36
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light is (screen["color_scheme"] == "light")
    assert page.evaluate(CONTRASTS) >= 4.5  # WCAG 2.1, 1.4.3


# The lowest contrast of a square's text with its background.
CONTRASTS = """
(() => {
  const numbers = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = (text) => numbers(text).slice(0, 3).map((value) => value / 255)
    .map((value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return numbers(colour)[3] === 0 ? behind(element.parentElement) : colour;
  };
  const contrast = (one) => {
    const [low, high] = [light(getComputedStyle(one).color), light(behind(one))].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const looked = document.querySelectorAll(".square, .badge, #outcomes button, .faint, dt, p");
  return Math.min(...[...looked].map(contrast));
})()
"""


def test_the_times_of_the_cells_are_drawn(page: Page, hostile: Path) -> None:
    show(page, hostile)
    assert shown(page, "#hosts-title") == ["When each cell ran"]
    page.locator("#hosts-title").click()
    bars = page.locator("#hosts-chart .bar")
    expect(bars).to_have_count(9)
    words = bars.evaluate_all("all => all.map(one => one.title)")
    assert {text.partition(":")[0] for text in words} == set(shown(page, "details.cell strong"))
    colours = bars.evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    assert len(set(colours)) > 3
