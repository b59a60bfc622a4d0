"use strict";

const COLOURS = ["#3f74d1", "#2f9e6e", "#c98a1b", "#8a5fc7", "#c7577f", "#3a9db0", "#8d7a4e", "#6a7f3c"];
const EVERY_MS = 350, CELLS = 40;
const at = (id) => document.getElementById(id);
const colours = new Map(); // by pid
const answers = [];        // the last pids; null where there was no answer
const gone = new Set();
const counts = new Map();

const colour = (pid) => {
  if (!colours.has(pid)) colours.set(pid, COLOURS[colours.size % COLOURS.length]);
  return colours.get(pid);
};

async function ask() {
  try {
    const answer = await (await fetch("/who", { cache: "no-store", signal: AbortSignal.timeout(5000) })).json();
    counts.set(answer.pid, (counts.get(answer.pid) || 0) + 1);
    at("pid").textContent = answer.pid;
    at("pid").style.color = colour(answer.pid);
    if (answer.count > Number(at("count").dataset.value || 0)) {
      at("count").dataset.value = answer.count;
      at("count").textContent = answer.count.toLocaleString("en");
    }
    showDashboard(answer.admin_port);
    answers.push(answer.pid);
    return answer.pid;
  } catch {
    answers.push(null);
    return null;
  } finally {
    while (answers.length > CELLS) answers.shift();
    draw();
  }
}

function draw() {
  const cells = answers.map((pid) => {
    const cell = document.createElement("i");
    if (pid === null) { cell.className = "failed"; cell.title = "no answer"; }
    else { cell.style.background = colour(pid); cell.title = `worker ${pid}`; }
    return cell;
  });
  while (cells.length < CELLS) cells.unshift(document.createElement("i"));
  at("ribbon").replaceChildren(...cells);
  at("workers").replaceChildren(...[...counts].slice(-8).map(([pid, count]) => {
    const item = document.createElement("li");
    const mark = item.appendChild(document.createElement("i"));
    mark.style.background = colour(pid);
    item.append(`${pid}: ${count}`);
    if (gone.has(pid)) item.className = "gone";
    return item;
  }));
}

function tell(text) {
  const item = document.createElement("li");
  item.appendChild(document.createElement("time")).textContent = new Date().toLocaleTimeString("en-GB");
  item.append(text);
  at("story").prepend(item);
  while (at("story").children.length > 6) at("story").lastChild.remove();
}

function showDashboard(port) {
  if (!port || at("frame")) return;
  const url = `http://${location.hostname}:${port}/`;
  const frame = document.createElement("iframe");
  frame.id = "frame";
  frame.title = "The dashboard";
  frame.src = url;
  at("admin").href = url;
  at("admin-link").hidden = false;
  at("no-admin").hidden = true;
  at("side").append(frame);
}

at("crash").addEventListener("click", async () => {
  at("crash").disabled = true;
  const known = new Set(counts.keys());
  try {
    const { pid } = await (await fetch("/crash", { method: "POST" })).json();
    const begun = performance.now();
    gone.add(pid);
    tell(`worker ${pid} is killed`);
    let asked = 0, failed = 0, heir = null;
    while (heir === null && performance.now() - begun < 10000) {
      const pids = await Promise.all([ask(), ask(), ask(), ask()]);
      asked += pids.length;
      failed += pids.filter((each) => each === null).length;
      heir = pids.find((each) => each !== null && !known.has(each)) || null;
    }
    const took = Math.round(performance.now() - begun);
    tell(heir === null ? `no new worker has answered within ${took} ms`
      : `worker ${heir} answered ${took} ms later; meanwhile ${asked} requests were made, ${failed} failed`);
  } catch (error) {
    tell(`nobody could be crashed: ${error.message}`);
  }
  at("crash").disabled = false;
});

at("ask").addEventListener("click", async () => {
  at("ask").disabled = true;
  const begun = performance.now();
  const mine = new Map();
  let failed = 0;
  for (let round = 0; round < 20; round += 1)
    for (const pid of await Promise.all(Array.from({ length: 10 }, ask)))
      if (pid === null) failed += 1; else mine.set(pid, (mine.get(pid) || 0) + 1);
  tell(`200 requests in ${((performance.now() - begun) / 1000).toFixed(1)} s, ${failed} failed: `
    + [...mine].map(([pid, count]) => `${pid} answered ${count}`).join(", "));
  at("ask").disabled = false;
});

async function goOn() {
  if (!document.hidden) await ask();
  setTimeout(goOn, EVERY_MS);
}
goOn();
