"use strict";
// Asks for status.json once a second while somebody can see the page, and not at all while nobody can. All that comes
// from outside is written as text. Rates and percentiles are the server's: here they are only drawn.

const EVERY_MS = 1000, KEPT_MS = 300000, PATIENCE_MS = 4000, GAP_MS = 5000, GONE_MS = 1800;
const TONES = { crash: "bad", hung: "bad", failed: "bad", refused: "bad", admin: "warn", left: "warn", rest: "warn", stop: "warn",
  reload: "a", upgrade: "a", recycle: "ok", scale: "ok", start: "ok" };

const at = (id) => document.getElementById(id);
const say = (id, text) => { const each = at(id); if (each.textContent !== text) each.textContent = text; };
const svg = (name, attributes, text) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
};

// -- what numbers look like ----------------------------------------------------------------------------------------

const NONE = "–";
const is = (value) => value !== null && value !== undefined;
const count = (value) => is(value) ? Math.round(value).toLocaleString("en") : NONE;
const rate = (value) => !is(value) ? NONE : value >= 100 || value === 0 ? count(value) : value.toFixed(value >= 10 ? 1 : 2);
const share = (value) => is(value) ? `${(100 * value).toFixed(value < 0.0995 && value > 0 ? 1 : 0)} %` : NONE;
const memory = (value) => !is(value) ? NONE
  : value < 1048576000 ? `${Math.round(value / 1048576)} MiB` : `${(value / 1073741824).toFixed(2)} GiB`;
function latency(value) {
  if (!is(value)) return NONE;
  const [number, unit] = value < 0.001 ? [value * 1e6, "µs"] : value < 1 ? [value * 1e3, "ms"] : [value, "s"];
  return `${number < 9.95 ? number.toFixed(1) : Math.round(number)} ${unit}`;
}
function duration(value) {
  if (!is(value)) return NONE;
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]])
    if (value >= length) return `${Math.floor(value / length)} ${unit}`;
  return `${Math.floor(value)} s`;
}
const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

// -- what is remembered --------------------------------------------------------------------------------------------

let shownMs = 60000;          // how much of it is drawn: a minute at first, in the end all that is kept
const history = [];           // one sample for each look: {at, rate, errors, p50, p99, memory, queue}
let events = [];              // those of the master, each with the time of this browser's clock
const eventTimes = new Map(); // by master and number, so that an event does not wander as its age is rounded
let last = null;
let pointedAt = null;         // the time that the pointer is at, if it is over the charts

function remember(status, now) {
  const before = last;
  last = status;
  let errors = null;
  if (before && before.pid === status.pid && status.now_ms > before.now_ms)
    errors = Math.max(0, status.statuses["5xx"] - before.statuses["5xx"]) / ((status.now_ms - before.now_ms) / 1000);
  history.push({ at: now, rate: status.requests_per_s, errors, p50: status.p50_s, p99: status.p99_s,
    memory: status.memory_pss_bytes, queue: status.queue_depth });
  while (history.length && history[0].at < now - KEPT_MS - GAP_MS) history.shift();
  shownMs = [60000, 120000, KEPT_MS].find((span) => now - history[0].at <= span) || KEPT_MS;
  events = status.events.map((event) => {
    const key = `${status.pid}/${event.number}`;
    if (!eventTimes.has(key)) eventTimes.set(key, now - event.ago_s * 1000);
    return { ...event, at: eventTimes.get(key) };
  });
  if (eventTimes.size > 1000) eventTimes.clear();
}

// -- the top -------------------------------------------------------------------------------------------------------

function showTop(status) {
  const tone = status.state === "serving" ? "ok" : status.is_ready ? "warn" : "bad";
  at("dot").className = `dot ${tone}`;
  say("name", status.name || "prefork");
  say("state", `${status.state}, ${status.ready} of ${status.wanted} worker${status.wanted === 1 ? "" : "s"}`);
  say("generation", is(status.incoming) ? `${status.generation} → ${status.incoming}` : `${status.generation}`);
  say("uptime", duration(status.uptime_s));
  say("master", `${status.pid}`);
  say("addresses", status.addresses.join(" "));
  say("version", `prefork ${status.version}`);
  document.title = `${status.name || "prefork"}: ${status.state}`;
  const sample = history[history.length - 1];
  say("rate", rate(status.requests_per_s));
  say("requests", `${count(status.requests)} in all`);
  say("p50", latency(status.p50_s));
  say("p99", latency(status.p99_s));
  say("in-flight", count(status.in_flight));
  say("connections", `${count(status.connections)} connections`);
  say("queue", count(status.queue_depth));
  at("queue-tile").className = `tile${status.queue_depth > 0 ? " warn" : ""}`;
  say("errors", rate(sample.errors));
  say("errors-all", `${count(status.statuses["5xx"])} in all`);
  at("errors-tile").className = `tile${sample.errors > 0 ? " bad" : ""}`;
  say("memory", memory(status.memory_pss_bytes));
  const shares = status.workers.map((worker) => worker.cpu_share).filter(is);
  say("cpu", shares.length ? share(shares.reduce((sum, each) => sum + each, 0)) : NONE);
}

// -- workers -------------------------------------------------------------------------------------------------------

const rows = new Map(); // by the worker's serial number

function makeRow(worker) {
  const row = document.createElement("tr");
  row.dataset.serial = worker.serial;
  const cells = {};
  for (const [name, kind] of [["slot", ""], ["pid", "wide"], ["phase", ""], ["generation", "n wide"], ["age", "n"], ["rate", "n"],
    ["flight", "n wide"], ["connections", "n wide"], ["p50", "n mid"], ["p99", "n"], ["cpu", "n mid"], ["memory", "n"]]) {
    const cell = cells[name] = document.createElement("td");
    cell.className = kind;
    row.append(cell);
  }
  const phase = cells.phase.appendChild(document.createElement("span"));
  const number = cells.rate.appendChild(document.createElement("span"));
  const bar = cells.rate.appendChild(document.createElement("span"));
  bar.className = "bar";
  return { row, cells, phase, number, bar };
}

function fillRow({ row, cells, phase, number, bar }, worker, most) {
  const put = (cell, text) => { if (cell.textContent !== text) cell.textContent = text; };
  put(cells.slot, `${worker.slot}`);
  put(cells.pid, is(worker.pid) ? `${worker.pid}` : NONE);
  phase.className = `phase ${worker.phase}`;
  put(phase, worker.worn && worker.phase === "ready" ? "ready, worn" : worker.phase);
  row.title = worker.worn || "";
  put(cells.generation, `${worker.generation}`);
  put(cells.age, duration(worker.age_s));
  put(number, rate(worker.requests_per_s));
  bar.style.width = most > 0 ? `${100 * (worker.requests_per_s || 0) / most}%` : "0";
  put(cells.flight, count(worker.in_flight));
  put(cells.connections, count(worker.connections));
  put(cells.p50, latency(worker.p50_s));
  put(cells.p99, latency(worker.p99_s));
  put(cells.cpu, share(worker.cpu_share));
  put(cells.memory, memory(worker.memory_pss_bytes));
}

function showWorkers(status, isFirst) {
  const body = at("workers");
  const most = Math.max(0, ...status.workers.map((worker) => worker.requests_per_s || 0));
  const here = new Set(status.workers.map((worker) => worker.serial));
  for (const [serial, made] of rows) {
    if (here.has(serial) || made.row.classList.contains("gone")) continue;
    made.row.classList.add("gone");
    made.phase.className = "phase gone";
    made.phase.textContent = "gone";
    setTimeout(() => { made.row.remove(); rows.delete(serial); }, GONE_MS);
  }
  for (const worker of status.workers) {
    let made = rows.get(worker.serial);
    if (!made || made.row.classList.contains("gone")) {
      if (made) made.row.remove();
      made = makeRow(worker);
      if (!isFirst) made.row.classList.add("new");
      rows.set(worker.serial, made);
      made.order = worker.slot * 1e6 + worker.serial;
      const next = [...body.children].find((row) => Number(row.dataset.order) > made.order);
      made.row.dataset.order = made.order;
      body.insertBefore(made.row, next || null);
    }
    fillRow(made, worker, most);
  }
  say("ready", `${status.ready} of ${status.wanted} ready`);
}

// -- events --------------------------------------------------------------------------------------------------------

let eventsShown = "";

function showEvents(status) {
  say("replaced", Object.entries(status.replaced).filter(([, n]) => n).map(([cause, n]) => `${cause} ${n}`).join(" · "));
  const key = events.length ? `${status.pid}/${events[events.length - 1].number}` : "none";
  if (key === eventsShown) return;
  eventsShown = key;
  const made = events.slice(-50).reverse().map((event) => {
    const item = document.createElement("li");
    const time = item.appendChild(document.createElement("time"));
    time.textContent = clock(event.at);
    time.title = new Date(event.at).toString();
    const kind = item.appendChild(document.createElement("b"));
    kind.textContent = event.kind === "failed" ? "reload ✕" : event.kind;
    kind.className = TONES[event.kind] || "";
    item.appendChild(document.createElement("span")).textContent = event.text;
    return item;
  });
  if (!made.length) {
    const item = document.createElement("li");
    item.className = "empty";
    item.textContent = "Nothing has happened yet.";
    made.push(item);
  }
  at("events").replaceChildren(...made);
}

// -- charts --------------------------------------------------------------------------------------------------------

const LANES = [
  { id: "rate", curves: [["rate", "a", true], ["errors", "bad", true]], least: 1, format: (value) => rate(value),
    tell: (s) => `${rate(s.rate)}${s.errors ? `, 5xx ${rate(s.errors)}` : ""}` },
  { id: "latency", curves: [["p50", "a", false], ["p99", "b", false]], least: 0.001, format: latency, isLog: true,
    tell: (s) => `p50 ${latency(s.p50)}, p99 ${latency(s.p99)}` },
  { id: "memory", curves: [["memory", "a", true]], least: 1048576, format: memory, tell: (s) => memory(s.memory) },
  { id: "queue", curves: [["queue", "b", false]], least: 1, format: count, tell: (s) => count(s.queue) },
];

const rounded = (value) => {
  const unit = 10 ** Math.floor(Math.log10(value));
  return unit * [1, 2, 2.5, 5, 10].find((step) => step * unit >= value * 0.9999);
};

function decade(value) { // the next of 1, 3, 10, 30 above
  const unit = 10 ** Math.floor(Math.log10(value) + 1e-9);
  return unit * [1, 3, 10].find((step) => step * unit >= value * 0.9999);
}

function drawLane(lane, now) {
  const picture = at(`chart-${lane.id}`);
  const { width, height } = picture.getBoundingClientRect();
  if (!width) return;
  const x = (time) => width * (1 - (now - time) / shownMs);
  const values = history.flatMap((sample) => lane.curves.map(([name]) => sample[name]).filter(is));
  let most, least, y;
  if (lane.isLog) {
    most = Math.max(lane.least, ...values);
    least = Math.min(most / 4, ...values.filter((value) => value > 0));
    most = decade(most);
    least = 1 / decade(1 / least);
    y = (value) => height - 1 - (height - 3) * Math.log(Math.max(value, least) / least) / Math.log(most / least);
  } else {
    most = rounded(Math.max(lane.least, ...values));
    least = 0;
    y = (value) => height - 1 - (height - 3) * value / most;
  }
  const drawn = [svg("line", { class: "grid", x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }),
    svg("line", { class: "grid", x1: 0, x2: width, y1: 1.5, y2: 1.5 }),
    svg("text", { x: 0, y: 12 }, values.length ? lane.format(most) : "")];
  if (lane.isLog && values.length) drawn.push(svg("text", { x: 0, y: height - 4 }, lane.format(least)));
  for (const event of events) {
    if (event.at < now - shownMs) continue;
    const place = x(event.at).toFixed(1);
    drawn.push(svg("line", { class: `rule ${TONES[event.kind] || ""}`, x1: place, x2: place, y1: 1, y2: height - 1 }));
  }
  for (const [name, tone, isFilled] of lane.curves) {
    for (const piece of pieces(name)) {
      const line = piece.map((sample) => `${x(sample.at).toFixed(1)},${y(sample[name]).toFixed(1)}`).join("L");
      if (isFilled) {
        const [first, final] = [x(piece[0].at).toFixed(1), x(piece[piece.length - 1].at).toFixed(1)];
        drawn.push(svg("path", { class: `area ${tone}`, d: `M${first},${height - 1}L${line}L${final},${height - 1}Z` }));
      }
      drawn.push(svg("path", { class: `curve ${tone}`, d: `M${line}${piece.length === 1 ? "h.01" : ""}` }));
    }
  }
  drawn.push(...cross(x, height));
  picture.replaceChildren(...drawn);
  const told = at(`lane-${lane.id}`);
  const sample = pointedAt === null ? history[history.length - 1] : nearest(pointedAt);
  told.textContent = sample ? `${pointedAt === null ? "" : `${clock(sample.at)}  `}${lane.tell(sample)}` : "";
  told.className = pointedAt === null ? "" : "pointed";
}

function* pieces(name) {
  let piece = [];
  for (const sample of history) {
    const isBroken = piece.length && sample.at - piece[piece.length - 1].at > GAP_MS;
    if (piece.length && (isBroken || !is(sample[name]))) { yield piece; piece = []; }
    if (is(sample[name])) piece.push(sample);
  }
  if (piece.length) yield piece;
}

const cross = (x, height) => pointedAt === null ? []
  : [svg("line", { class: "cross", x1: x(pointedAt), x2: x(pointedAt), y1: 0, y2: height })];

function nearest(time) {
  let found = null;
  for (const sample of history)
    if (!found || Math.abs(sample.at - time) < Math.abs(found.at - time)) found = sample;
  return found && Math.abs(found.at - time) < GAP_MS ? found : null;
}

function drawEvents(now) {
  const picture = at("chart-events");
  const { width, height } = picture.getBoundingClientRect();
  if (!width) return;
  const x = (time) => width * (1 - (now - time) / shownMs);
  const middle = 12;
  const drawn = [svg("line", { class: "grid", x1: 0, x2: width, y1: middle, y2: middle })];
  const stepMs = shownMs === KEPT_MS ? 60000 : shownMs / 4;
  for (let ago = shownMs; ago >= 0; ago -= stepMs) {
    const place = x(now - ago), anchor = ago === shownMs ? "start" : ago === 0 ? "end" : "middle";
    const text = ago === 0 ? "now" : ago % 60000 ? `−${ago / 1000} s` : `−${ago / 60000} min`;
    drawn.push(svg("line", { class: "grid", x1: place, x2: place, y1: middle, y2: middle + 5 }));
    drawn.push(svg("text", { x: place, y: height - 6, "text-anchor": anchor }, text));
  }
  let pointed = null;
  for (const event of events) {
    if (event.at < now - shownMs) continue;
    const place = x(event.at), tone = TONES[event.kind] || "";
    const mark = tone === "bad"
      ? svg("path", { class: `mark ${tone}`, d: `M${place},${middle - 7}l6.5,11.5h-13z` })
      : svg("circle", { class: `mark ${tone}`, cx: place, cy: middle, r: 5 });
    mark.append(svg("title", {}, `${clock(event.at)} ${event.kind}: ${event.text}`));
    drawn.push(mark);
    if (pointedAt !== null && Math.abs(event.at - pointedAt) < shownMs * 8 / width
      && (!pointed || Math.abs(event.at - pointedAt) < Math.abs(pointed.at - pointedAt))) pointed = event;
  }
  drawn.push(...cross(x, height - 18));
  picture.replaceChildren(...drawn);
  say("lane-events", pointed ? `${clock(pointed.at)}  ${pointed.text}` : "");
}

function draw() {
  const now = Date.now();
  for (const lane of LANES) drawLane(lane, now);
  drawEvents(now);
}

at("charts").addEventListener("pointermove", (event) => {
  const box = at("chart-rate").getBoundingClientRect();
  const part = (event.clientX - box.left) / box.width;
  pointedAt = part >= 0 && part <= 1 ? Date.now() - shownMs * (1 - part) : null;
  draw();
});
at("charts").addEventListener("pointerleave", () => { pointedAt = null; draw(); });
new ResizeObserver(draw).observe(at("charts"));

// -- looking -------------------------------------------------------------------------------------------------------

let timer = null, failures = 0, isAsking = false;

function show(status) {
  const isFirst = last === null;
  remember(status, Date.now());
  showTop(status);
  showWorkers(status, isFirst);
  showEvents(status);
  draw();
}

async function look() {
  if (isAsking) return;
  isAsking = true;
  const begun = performance.now();
  try {
    const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error((await answer.text()).trim() || `status ${answer.status}`);
    show(await answer.json());
    failures = 0;
    at("notice").hidden = true;
  } catch (error) {
    failures += 1;
    if (failures > 1) { // one may be the moment in which the admin process is replaced
      at("dot").className = "dot bad";
      say("state", "no answer");
      at("notice").hidden = false;
      say("notice", `Nobody answers (${error.message}). What is shown is old; this page goes on asking.`);
    }
  } finally {
    isAsking = false;
    if (!document.hidden) timer = setTimeout(look, Math.max(100, EVERY_MS - (performance.now() - begun)));
  }
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden) look();
});
if (!document.hidden) look();
