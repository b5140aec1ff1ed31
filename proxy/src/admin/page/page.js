// Asks the sidecar again and again while somebody looks, and shows what it says.
"use strict";

const EVERY_MS = 3000;
// Who has not answered by then hangs.
const PATIENCE_MS = 10000;
// What is read from the history changes once a minute.
const HISTORY_MS = 60000;
const state = { live: null, policies: {}, spend: null, baseline: null, paused: false, calls: "failed", open: new Set(), said: "" };
const absent = new Set();
let askedHistory = -HISTORY_MS;

const showModels = table("models", "Model", (row) => row.model);
const showRoutes = table("routes", "Route", (row) => `${name(row.route, "no route")} → ${name(row.upstream, "nobody")}`);

async function ask(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" }, signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!answer.ok) throw Object.assign(new Error(`${path} answers ${answer.status}`), { status: answer.status });
  return answer.json();
}

// What is not configured is asked for once.
async function askIfThere(path) {
  if (absent.has(path)) return null;
  try {
    return await ask(path);
  } catch (error) {
    if (error.status === 404) absent.add(path);
    return null;
  }
}

function show() {
  const { live } = state;
  if (!live) return;
  by("version").textContent = live.version;
  showCards(live);
  showAlerts(live);
  drawHour(live.hour);
  const filter = by("filter").value;
  const models = modelRows(live, filter);
  showModels(models, filter ? "No model has this in its name" : "No call has come in this window");
  by("models-note").textContent = filter ? `${models.length} of ${live.rows.length} models` : "";
  showRoutes(routeRows(live), "No call has come in this window");
  showCalls(live.calls[state.calls], state.open);
  showPolicies(state.policies, live.bypass);
  showSpend(live, state.spend);
  showBaseline(state.baseline);
  showUsage(live);
  showState(live);
}

function showState(live) {
  const loadTest = by("load-test");
  loadTest.hidden = !live.load_test;
  if (live.load_test) loadTest.textContent = `◆ Load test: ${rate(live.load_test.calls_per_second)}`;
  const pill = by("state");
  const [text, mark] = live.bypass ? ["▲ Policies bypassed", "warn"] : live.alerts.length ? [`▲ ${live.alerts.length} would alert`, "bad"] : ["● Nothing would alert", "good"];
  pill.textContent = text;
  pill.className = `pill ${mark}`;
  by("updated").textContent = `As of ${clock(live.to)}, of ${seconds(live.covers_s)}`;
  // Said aloud when it changes, not with every look.
  if (state.said !== text) by("said").textContent = state.said = text;
}

async function look() {
  try {
    const [live, policies] = await Promise.all([ask(`/live?window=${by("window").value}`), ask("/policies")]);
    Object.assign(state, { live, policies });
    if (performance.now() - askedHistory >= HISTORY_MS) {
      askedHistory = performance.now();
      const [spend, baseline] = await Promise.all([askIfThere("/spend"), askIfThere("/baseline")]);
      Object.assign(state, { spend, baseline });
    }
    show();
  } catch (error) {
    by("updated").textContent = `The sidecar does not answer: ${error.message}`;
    by("state").textContent = by("said").textContent = state.said = "▲ No answer";
    by("state").className = "pill bad";
  }
}

async function keepLooking() {
  if (!state.paused && document.visibilityState === "visible") await look();
  setTimeout(keepLooking, EVERY_MS);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  by("theme").textContent = theme === "dark" ? "Light" : "Dark";
  try { localStorage.setItem("theme", theme); } catch { /* It is kept nowhere, then. */ }
  forgetCharts();
  show();
}

function choose(calls) {
  state.calls = calls;
  by("show-failed").setAttribute("aria-pressed", calls === "failed");
  by("show-slow").setAttribute("aria-pressed", calls === "slow");
  show();
}

function theme() {
  let kept = null;
  try { kept = localStorage.getItem("theme"); } catch { /* It is kept nowhere. */ }
  return kept ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

by("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
by("pause").addEventListener("click", () => {
  state.paused = !state.paused;
  by("pause").setAttribute("aria-pressed", state.paused);
  if (!state.paused) look();
});
by("window").addEventListener("change", look);
by("filter").addEventListener("input", show);
by("show-failed").addEventListener("click", () => choose("failed"));
by("show-slow").addEventListener("click", () => choose("slow"));
addEventListener("resize", resize);
document.addEventListener("visibilitychange", () => { if (document.visibilityState === "visible" && !state.paused) look(); });
setTheme(theme());
keepLooking();
