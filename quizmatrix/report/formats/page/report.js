// Everything that came from a guest reaches the page through textContent and createTextNode, and nothing else.
"use strict";

(async () => {
  const MOST_HITS = 200;
  const MOST_MARKS = 2000;
  const FIRST_TESTS = 100;
  const SIGNS = {
    "passed": "✓", "failed": "✗", "timed-out": "◷", "panicked": "‼", "splat": "!",
    "boot-failed": "⊘", "lost": "?", "unprepared": "…", "cancelled": "–", "skipped": "–",
  };
  const TESTS = {
    p: ["passed", "passed"], f: ["failed", "failed"], s: ["skipped", "skipped"], k: ["killed", "killed"],
    r: ["rerun", "passed (rerun)"], e: ["skipped", "failed as expected"],
  };

  const byId = (id) => document.getElementById(id);

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children);
    return element;
  }

  async function unpack(id) {
    const packed = atob(byId(id).textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  function size(bytes) {
    if (bytes < 1024) return `${bytes} bytes`;
    const kib = bytes / 1024;
    return kib < 1024 ? `${kib.toFixed(kib < 10 ? 1 : 0)} KiB` : `${(kib / 1024).toFixed(1)} MiB`;
  }

  if (typeof DecompressionStream === "undefined") {
    byId("warning").textContent = "This browser is too old to unpack the report (it lacks DecompressionStream).";
    byId("warning").hidden = false;
    return;
  }
  const data = await unpack("data");
  const cells = new Map(data.cells.map((cell) => [cell.id, cell]));
  const state = { search: "", text: "", kernel: "", arch: "", outcomes: new Set() };
  let allTests = false;
  // A word that no cell has is meant for the tests alone.
  let textNamesCells = false;

  // ---- What is chosen: in the address, so that a link shows the same.

  function readAddress() {
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const key of ["search", "text", "kernel", "arch"]) {
      state[key] = asked.get(key) ?? "";
      byId(key).value = state[key];
    }
    state.outcomes = new Set((asked.get("outcome") ?? "").split(",").filter(Boolean));
    return asked.get("cell");
  }

  function writeAddress(cell) {
    const shown = new URLSearchParams();
    for (const key of ["search", "text", "kernel", "arch"]) if (state[key]) shown.set(key, state[key]);
    if (state.outcomes.size) shown.set("outcome", [...state.outcomes].join(","));
    if (cell) shown.set("cell", cell);
    try {
      history.replaceState(null, "", `#${shown}`);
    } catch {
      // A frame that may not: then there is no link to this view.
    }
  }

  function contains(text) {
    const low = text.toLowerCase();
    return state.text.toLowerCase().split(/\s+/).every((word) => low.includes(word));
  }

  function isShown(cell) {
    return (!state.outcomes.size || state.outcomes.has(cell.outcome))
      && (!state.kernel || cell.kernel === state.kernel)
      && (!state.arch || cell.arch === state.arch)
      && (!state.text || !textNamesCells || contains(`${cell.id} ${cell.words} ${cell.detail}`));
  }

  function verdict(cell, className) {
    const badge = make("span", `${className} ${cell.outcome}${cell.bad ? "" : " expected"}`);
    const sign = make("span", "sign", SIGNS[cell.outcome] ?? "");
    sign.setAttribute("aria-hidden", "true");
    badge.append(sign, " ", cell.words);
    return badge;
  }

  // ---- The parts of the page.

  function showHead() {
    byId("run").textContent = data.run;
    byId("summary").textContent = data.summary;
    byId("sentence").textContent = data.sentence;
    byId("unended").textContent = data.unended;
    byId("unended").hidden = !data.unended;
    byId("command").textContent = data.command;
    byId("command").hidden = !data.command;
    const began = new Date(data.started).toLocaleString();
    const facts = [`began ${began}`];
    if (data.took) facts.push(`took ${data.took}`);
    if (data.exit !== null) facts.push(`exit status ${data.exit}`);
    byId("facts").textContent = `${facts.join(" · ")} · ${data.folder}`;
    for (const key of ["kernel", "arch"]) {
      for (const value of new Set(data.cells.map((cell) => cell[key]))) {
        const option = make("option", "", value);
        option.value = value;
        byId(key).append(option);
      }
    }
    for (const remark of data.remarks) byId("remarks").append(make("p", "", remark));
    for (const note of data.notes) byId("notes-list").append(make("li", "", note));
    byId("notes").hidden = !data.notes.length;
  }

  function showOutcomes() {
    const counts = new Map();
    for (const cell of data.cells) counts.set(cell.outcome, (counts.get(cell.outcome) ?? 0) + 1);
    for (const outcome of Object.keys(SIGNS)) {
      if (!counts.has(outcome)) continue;
      const button = make("button", outcome, `${SIGNS[outcome]} ${outcome} ${counts.get(outcome)}`);
      button.type = "button";
      button.dataset.outcome = outcome;
      button.addEventListener("click", () => {
        if (!state.outcomes.delete(outcome)) state.outcomes.add(outcome);
        writeAddress();
        apply();
      });
      byId("outcomes").append(button);
    }
  }

  function showGrid() {
    byId("matrix").hidden = !data.cells.length;
    for (const grid of data.grids) {
      grid.table = make("table", "grid", ...gridParts(grid));
      const scroll = make("div", "scroll", grid.table);
      scroll.tabIndex = 0;
      scroll.setAttribute("role", "region");
      scroll.setAttribute("aria-label", "the grid");
      byId("matrix").append(scroll);
    }
  }

  function gridParts(grid) {
    const head = make("tr", "", make("th", "", grid.corner));
    for (const column of grid.columns) head.append(make("th", "", column));
    const body = make("tbody");
    for (const [label, ids] of grid.rows) {
      const name = make("th", "", label);
      name.scope = "row";
      const row = make("tr", "", name);
      for (const id of ids) {
        const place = make("td");
        if (id !== null) {
          const cell = cells.get(id);
          const square = make("button", `square ${cell.outcome}${cell.bad ? "" : " expected"}`);
          square.type = "button";
          square.append(...verdict(cell, "").childNodes);
          if (cell.time) square.append(make("span", "time", cell.time));
          square.title = cell.detail ? `${cell.id}: ${cell.detail}` : cell.id;
          square.addEventListener("click", () => goTo(cell));
          cell.square = square;
          place.append(square);
        }
        row.append(place);
      }
      body.append(row);
    }
    return [make("thead", "", head), body];
  }

  // When each cell had a guest: a row of bars for each that a host ran at the same time.
  function showHosts() {
    const { hosts, length } = data.chart;
    byId("hosts").hidden = !hosts.length;
    if (!hosts.length) return;
    byId("hosts-title").textContent = hosts.length > 1 ? `When each cell ran, on ${hosts.length} hosts` : "When each cell ran";
    const table = make("table", "chart");
    for (const [name, lanes] of hosts) {
      lanes.forEach((lane, number) => {
        const title = make("th", "", number ? "" : name);
        title.scope = "row";
        table.append(make("tr", "", title, make("td", "", bars(lane, length))));
      });
    }
    byId("hosts-chart").append(table);
  }

  function bars(lane, length) {
    const picture = make("div", "bars");
    for (const [id, began, ended, isLast, words] of lane) {
      const cell = cells.get(id);
      const kind = isLast && cell ? `${cell.outcome}${cell.bad ? "" : " expected"}` : "lost";
      const bar = make("button", `bar ${kind}`);
      bar.type = "button";
      bar.title = words;
      bar.style.left = `${100 * began / length}%`;
      bar.style.width = `max(3px, ${100 * (ended - began) / length}%)`;
      if (cell) bar.addEventListener("click", () => goTo(cell));
      picture.append(bar);
    }
    return picture;
  }

  function showTests() {
    const { tests } = data;
    byId("tests").hidden = !tests.rows.length;
    if (!tests.rows.length) return;
    const found = tests.rows.filter(([name]) => !state.text || textNamesCells || contains(name));
    const columns = tests.cells.map((_, index) => index).filter((index) => {
      const cell = cells.get(tests.cells[index]);
      return !cell || isShown(cell);
    });
    const shown = allTests ? found : found.slice(0, FIRST_TESTS);
    const head = make("tr", "", make("th", "", "test"));
    for (const index of columns) head.append(make("th", "", tests.cells[index]));
    const body = make("tbody");
    for (const [name, letters] of shown) {
      const title = make("th", "", name);
      title.scope = "row";
      const row = make("tr", "", title);
      for (const index of columns) {
        const [className, words] = TESTS[letters[index]] ?? ["", "–"];
        row.append(make("td", className, words));
      }
      body.append(row);
    }
    byId("tests-table").replaceChildren(make("thead", "", head), body);
    const all = tests.rows.length + tests.left_out;
    byId("tests-title").textContent = `Tests that failed or differ: ${all}`
      + (tests.left_out ? `, of which ${tests.rows.length} are here` : "");
    byId("tests-sentences").replaceChildren(
      ...tests.sentences.filter(Boolean).map((sentence) => make("li", "", sentence)));
    byId("tests-more").hidden = shown.length === found.length;
    byId("tests-more").textContent = `Show all ${found.length}`;
  }

  function showCells() {
    for (const cell of data.cells) {
      const summary = make("summary", "", verdict(cell, "badge"), " ", make("strong", "", cell.id));
      if (cell.detail) summary.append(` ${cell.detail}`);
      cell.details = make("details", "cell", summary);
      cell.details.addEventListener("toggle", () => {
        if (cell.details.open) fillCell(cell);
      });
      byId(cell.bad ? "bad-cells" : "good-cells").append(cell.details);
    }
  }

  function fillCell(cell) {
    if (cell.isFilled) return;
    cell.isFilled = true;
    const inside = make("div", "inside");
    const facts = make("dl");
    for (const [name, value] of cell.facts) facts.append(make("dt", "", name), make("dd", "", value));
    if (cell.facts.length) inside.append(facts);
    if (cell.findings.length) inside.append(make("h3", "", "Findings"));
    for (const [words, lines] of cell.findings) inside.append(make("p", "faint", words), block("trace", lines.join("\n")));
    if (cell.trace.length) inside.append(make("h3", "", "What the kernel said"), block("trace", cell.trace.join("\n")));
    if (cell.again) inside.append(make("h3", "", "Again"), block("again", cell.again));
    for (const log of cell.logs) inside.append(fillableLog(cell, log));
    if (!cell.logs.length) inside.append(make("p", "faint", "It left no logs."));
    cell.details.append(inside);
    if (cell.opens && cell.logs.length) cell.logs[0].details.open = true;
  }

  function block(className, text) {
    const pre = make("pre", className, text);
    pre.tabIndex = 0;
    return pre;
  }

  // ---- Logs: unpacked when they are first looked at.

  function fillableLog(cell, log) {
    const kept = log.left_out ? `${size(log.size)}, of which ${size(log.size - log.left_out)} are here` : size(log.size);
    log.details = make("details", "log", make("summary", "", log.name, " ", make("span", "faint", kept)));
    if (log.finding !== null) {
      const jump = make("button", "", `To the first finding (line ${log.finding})`);
      jump.type = "button";
      jump.addEventListener("click", () => openLog(cell, log, log.finding));
      log.details.append(jump);
    }
    log.pre = block("", "");
    log.pre.setAttribute("aria-label", `${log.name} of ${cell.id}`);
    log.details.append(log.pre);
    log.details.addEventListener("toggle", async () => {
      if (log.details.open && log.shown === undefined) {
        await fillLog(log, log.finding);
        reveal(log, log.finding !== null);
      }
    });
    return log.details;
  }

  async function partsOf(log) {
    log.parts ??= unpack(log.id);
    return log.parts;
  }

  async function fillLog(log, target) {
    log.shown = state.search;
    log.target = target;
    const parts = await partsOf(log);
    const pattern = state.search ? patternOf(state.search) : null;
    const budget = { marks: MOST_MARKS };
    const nodes = document.createDocumentFragment();
    let next = 1;
    parts.forEach(([line, text], index) => {
      if (index) {
        const cut = line > next ? ` (lines ${next} to ${line})` : "";
        nodes.append(make("span", "cut", `Not in this report: what lies between${cut}. The run directory has it.`));
      }
      const lines = text.split("\n");
      const at = target === null ? -1 : target - line;
      if (at >= 0 && at < lines.length) {
        if (at) addMarked(nodes, `${lines.slice(0, at).join("\n")}\n`, pattern, budget);
        const marked = make("span", "target");
        addMarked(marked, lines[at] || " ", pattern, budget);
        nodes.append(marked);
        addMarked(nodes, lines.slice(at + 1).join("\n"), pattern, budget);
      } else {
        addMarked(nodes, text, pattern, budget);
      }
      next = line + lines.length;
    });
    log.pre.replaceChildren(nodes);
  }

  function reveal(log, isTarget) {
    const target = isTarget ? log.pre.querySelector(".target") : null;
    if (target) log.pre.scrollTop = target.offsetTop - log.pre.offsetTop - log.pre.clientHeight / 3;
    else log.pre.scrollTop = log.pre.scrollHeight;
  }

  function addMarked(parent, text, pattern, budget) {
    let from = 0;
    if (pattern) {
      for (const match of text.matchAll(pattern)) {
        if (budget.marks-- <= 0) break;
        parent.append(text.slice(from, match.index), make("mark", "", match[0]));
        from = match.index + match[0].length;
      }
    }
    parent.append(text.slice(from));
  }

  async function openLog(cell, log, line) {
    goTo(cell, false);
    log.details.open = true;
    await fillLog(log, line);
    log.details.scrollIntoView({ block: "start" });
    reveal(log, true);
  }

  function goTo(cell, scrolls = true) {
    fillCell(cell);
    cell.details.hidden = false;
    cell.details.open = true;
    if (scrolls) {
      writeAddress(cell.id);
      cell.details.scrollIntoView({ block: "start" });
      cell.details.querySelector("summary").focus({ preventScroll: true });
    }
  }

  // ---- The search.

  let searches = 0;
  let hits = [];
  let current = -1;

  function patternOf(text) {
    return new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi");
  }

  async function search() {
    const mine = ++searches;
    const asked = state.search;
    const found = [];
    let count = 0;
    let logs = 0;
    if (asked) {
      const pattern = patternOf(asked);
      // What failed is what one looks for.
      for (const cell of data.cells.filter(isShown).sort((one, other) => other.bad - one.bad)) {
        for (const log of cell.logs) {
          const parts = await partsOf(log);
          if (mine !== searches) return;
          const before = count;
          for (const hit of linesWith(parts, pattern)) {
            if (++count <= MOST_HITS) found.push({ cell, log, ...hit });
          }
          if (count > before) logs++;
        }
      }
    }
    hits = found;
    current = -1;
    showHits(asked, count, logs);
    for (const cell of data.cells) {
      for (const log of cell.logs) {
        if (log.shown !== undefined && log.shown !== asked) await fillLog(log, log.target);
      }
    }
    document.documentElement.dataset.searched = asked;
  }

  function* linesWith(parts, pattern) {
    for (const [first, text] of parts) {
      let line = first;
      let from = 0;
      pattern.lastIndex = 0;
      for (let match = pattern.exec(text); match; match = pattern.exec(text)) {
        for (let at = text.indexOf("\n", from); at !== -1 && at < match.index; at = text.indexOf("\n", from)) {
          line++;
          from = at + 1;
        }
        const end = text.indexOf("\n", match.index);
        yield { line, text: text.slice(from, end === -1 ? undefined : end), at: match.index - from };
        if (end === -1) break;
        // One hit for a line, however often it is in it.
        pattern.lastIndex = end + 1;
      }
    }
  }

  function showHits(asked, count, logs) {
    byId("found").hidden = !asked;
    const more = count > hits.length ? `, the first ${hits.length} below` : "";
    byId("found-title").textContent = count
      ? `${count} line${count === 1 ? "" : "s"} in ${logs} log${logs === 1 ? "" : "s"}${more}`
      : "Not found in the logs that this report has";
    const pattern = asked ? patternOf(asked) : null;
    byId("hits").replaceChildren(...hits.map((hit, index) => {
      const start = hit.at > 60 ? hit.at - 40 : 0;
      const snippet = make("span", "snippet");
      addMarked(snippet, (start ? "… " : "") + hit.text.slice(start, start + 240), pattern, { marks: 20 });
      const where = make("span", "where", `${hit.cell.id} · ${hit.log.name} · line ${hit.line}`);
      const button = make("button", "", where, snippet);
      button.type = "button";
      button.addEventListener("click", () => openHit(index));
      return make("li", "", button);
    }));
  }

  async function openHit(index) {
    if (!hits.length) return;
    current = (index + hits.length) % hits.length;
    byId("hits").querySelectorAll("button").forEach((button, at) => {
      if (at === current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
    const hit = hits[current];
    await openLog(hit.cell, hit.log, hit.line);
  }

  // ---- All that follows a change.

  function apply() {
    textNamesCells = data.cells.some((cell) => contains(`${cell.id} ${cell.words} ${cell.detail}`));
    const shown = new Set(data.cells.filter(isShown));
    for (const cell of data.cells) {
      cell.square?.classList.toggle("filtered", !shown.has(cell));
      cell.details.hidden = !shown.has(cell);
    }
    const isEmpty = (ids) => !ids.some((id) => id !== null && shown.has(cells.get(id)));
    for (const { table, columns, rows } of data.grids) {
      rows.forEach(([, ids], index) => {
        table.rows[index + 1].hidden = isEmpty(ids);
      });
      columns.forEach((_, index) => {
        const hides = isEmpty(rows.map(([, ids]) => ids[index]));
        for (const row of table.rows) row.cells[index + 1].hidden = hides;
      });
      table.parentNode.hidden = rows.every(([, ids]) => isEmpty(ids));
    }
    for (const button of byId("outcomes").children) {
      button.setAttribute("aria-pressed", String(state.outcomes.has(button.dataset.outcome)));
    }
    for (const [name, isBad, words] of [["bad", true, "not as expected"], ["good", false, "as expected"]]) {
      const count = [...shown].filter((cell) => cell.bad === isBad).length;
      byId(name).hidden = !count;
      byId(`${name}-title`).textContent = `${count} ${data.noun}${count === 1 ? "" : "s"} ${words}`;
    }
    showTests();
    return search();
  }

  function listen() {
    let waiting = 0;
    for (const key of ["search", "text", "kernel", "arch"]) {
      byId(key).addEventListener("input", () => {
        state[key] = byId(key).value;
        clearTimeout(waiting);
        waiting = setTimeout(() => {
          writeAddress();
          apply();
        }, 150);
      });
    }
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("search").addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      openHit(event.shiftKey ? current - 1 : current + 1).then(() => byId("search").focus({ preventScroll: true }));
    });
    document.addEventListener("keydown", (event) => {
      const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
      if (event.key !== "/" || isTyping || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      byId("search").focus();
    });
    byId("tests-more").addEventListener("click", () => {
      allTests = true;
      showTests();
    });
    addEventListener("hashchange", follow);
  }

  async function follow() {
    const asked = cells.get(readAddress());
    await apply();
    if (asked) goTo(asked);
  }

  showHead();
  showOutcomes();
  showGrid();
  showHosts();
  showCells();
  listen();
  byId("page").hidden = false;
  const bad = data.cells.filter((cell) => cell.bad);
  if (bad.length === 1) goTo(bad[0], false);
  await follow();
  document.documentElement.dataset.ready = "yes";
})().catch((error) => {
  const place = document.getElementById("warning");
  place.textContent = `This report cannot be shown: ${error}`;
  place.hidden = false;
});
