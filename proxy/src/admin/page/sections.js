// The parts of the page: each a function of what the sidecar said.
"use strict";

const ALERTS = {
  TidegateErrorRatioHigh: (alert) => `${percent(alert.value)} of ${count(alert.calls)} calls fail; over ${percent(alert.threshold)} is too many`,
  TidegateP99Over3s: (alert) => `${percent(alert.value)} of ${count(alert.calls)} calls wait longer than 3 s; over 1 % the P99 is`,
  TidegateP99Over2s: (alert) => `${percent(alert.value)} of ${count(alert.calls)} calls have waited longer than 2 s for 5 minutes`,
};

function showCards(live) {
  const total = live.total;
  const inFlight = live.in_flight.reduce((sum, part) => sum + part.calls, 0);
  const latency = total.latency_s;
  const first = total.time_to_first_token_s;
  const perSecond = (tokens) => (isKnown(tokens) ? `${count(tokens / live.covers_s)}/s` : NONE);
  const refused = total.outcomes.refused ?? 0;
  const ofErrors = refused ? `▲ and ${count(refused)} refused by policies` : "not by the caller’s fault";
  const cards = [
    ["Calls", rate(total.calls_per_second), `${count(total.calls)} in all`],
    ["Errors", percent(total.error_ratio), total.error_ratio > 0.05 ? "▲ too many" : ofErrors, total.error_ratio > 0.05 ? "bad" : ""],
    ["Latency P50", seconds(latency?.p50), `P90 ${seconds(latency?.p90)}`],
    ["Latency P99", seconds(latency?.p99), latency?.p99 > 3 ? "▲ over 3 s" : "first token of streams, end of others", latency?.p99 > 3 ? "bad" : ""],
    ["First token P99", seconds(first?.p99), `P50 ${seconds(first?.p50)}`],
    ["In flight", count(inFlight), "calls that are open now"],
    ["Output tokens", perSecond(total.tokens?.output), `input ${perSecond(total.tokens?.input)}`],
    ["Cost of the last hour", dollars(live.hour.total.cost_usd), live.hour.total.unpriced ? `${count(live.hour.total.unpriced)} calls have no price` : "by the price table"],
  ];
  by("cards").replaceChildren(...cards.map(([label, big, small, mark]) =>
    el("div", {}, el("dt", {}, label), el("dd", { class: `big ${mark ?? ""}` }, big), el("dd", { class: "quiet" }, small))));
}

function showAlerts(live) {
  const alerts = live.alerts.map((alert) => el("p", { class: "panel alert", "data-alert": alert.alert },
    el("span", { class: "bad", "aria-hidden": "true" }, "▲"),
    el("span", {}, el("strong", {}, name(alert.model, "no model")), ` ${(ALERTS[alert.alert] ?? (() => ""))(alert)} `, el("code", { class: "quiet" }, alert.alert))));
  const none = el("p", { class: "quiet" }, "Nothing, by the figures of this sidecar alone: errors over 5 %, P99 over 3 s, P99 over 2 s for 5 minutes.");
  by("alerts").replaceChildren(...(alerts.length ? alerts : [none]));
}

// === tables ===

const COLUMNS = [
  ["calls", "Calls", (row) => row.calls, (row) => count(row.calls)],
  ["rate", "Rate", (row) => row.calls_per_second, (row) => rate(row.calls_per_second)],
  ["errors", "Errors", (row) => row.error_ratio, (row) => percent(row.error_ratio), (row) => (row.error_ratio > 0.05 ? "bad" : "")],
  ["p50", "P50", (row) => row.latency_s?.p50, (row) => seconds(row.latency_s?.p50)],
  ["p90", "P90", (row) => row.latency_s?.p90, (row) => seconds(row.latency_s?.p90)],
  ["p99", "P99", (row) => row.latency_s?.p99, (row) => seconds(row.latency_s?.p99), (row) => (row.latency_s?.p99 > 3 ? "bad" : "")],
  ["first", "First token P99", (row) => row.time_to_first_token_s?.p99, (row) => seconds(row.time_to_first_token_s?.p99)],
  ["flight", "In flight", (row) => row.in_flight, (row) => count(row.in_flight)],
  ["input", "Input", (row) => row.tokens?.input, (row) => count(row.tokens?.input)],
  ["output", "Output", (row) => row.tokens?.output, (row) => count(row.tokens?.output)],
  ["cost", "Cost", (row) => row.cost_usd, (row) => dollars(row.cost_usd)],
];

// A table whose columns sort, and which keeps its head from one look to the next.
function table(id, first, label) {
  const place = by(id);
  const columns = [["name", first, label, label], ...COLUMNS];
  let sorted = { column: "calls", down: true };
  let show = () => {};
  const heads = columns.map(([key, text]) => {
    const button = el("button", { type: "button" }, text);
    button.addEventListener("click", () => {
      sorted = { column: key, down: sorted.column === key ? !sorted.down : key !== "name" };
      show();
    });
    return el("th", { scope: "col" }, button);
  });
  const body = el("tbody");
  place.append(el("thead", {}, el("tr", {}, ...heads, el("th", { scope: "col", class: "chips" }, "Status codes"))), body);
  const row = (data) => el("tr", {}, el("th", { scope: "row", title: label(data) }, label(data)),
    ...COLUMNS.map(([, , , text, mark]) => el("td", { class: mark?.(data) || undefined }, mark?.(data) ? `▲ ${text(data)}` : text(data))),
    el("td", { class: "chips" }, ...Object.entries(data.statuses).map(([status, calls]) => el("span", { class: `chip ${statusMark(status)}` }, `${status} × ${count(calls)}`))));
  return (rows, note) => {
    show = () => {
      const [, , read] = columns.find(([key]) => key === sorted.column);
      const order = (one, other) => {
        const [a, b] = [read(one) ?? -Infinity, read(other) ?? -Infinity];
        return (a < b ? -1 : a > b ? 1 : 0) * (sorted.down ? -1 : 1);
      };
      body.replaceChildren(...[...rows].sort(order).map(row));
      heads.forEach((head, at) => head.setAttribute("aria-sort", columns[at][0] !== sorted.column ? "none" : sorted.down ? "descending" : "ascending"));
      if (!rows.length) body.replaceChildren(el("tr", {}, el("th", { scope: "row", class: "quiet" }, note)));
    };
    show();
  };
}

const statusMark = (status) => (status === "none" || status >= 500 ? "bad" : status >= 400 ? "warn" : "");

function modelRows(live, filter) {
  const open = new Map();
  for (const part of live.in_flight) open.set(part.model, (open.get(part.model) ?? 0) + part.calls);
  const rows = live.rows.map((row) => ({ ...row, in_flight: open.get(row.model) ?? 0 }));
  const wanted = filter.toLowerCase();
  return rows.filter((row) => row.model.toLowerCase().includes(wanted));
}

function routeRows(live) {
  const open = new Map();
  for (const part of live.in_flight) open.set(part.upstream, (open.get(part.upstream) ?? 0) + part.calls);
  return live.routes.map((row) => ({ ...row, in_flight: open.get(row.upstream) ?? (row.upstream ? 0 : null) }));
}

// === calls ===

// The stretches of a call, in order, as far as they were measured.
function stretches(call) {
  const waits = Object.entries(call).filter(([key]) => key.startsWith("tidegate.wait.")).reduce((sum, [, wait]) => sum + wait, 0);
  const at = (key) => call[`tidegate.${key}_s`];
  const ends = [["s-wait", "waits", waits], ["s-head", "to the first byte", at("time_to_first_byte")], ["s-token", "to the first token", at("time_to_first_token")], ["s-stream", "the rest", at("duration")]];
  let from = 0;
  return ends.flatMap(([kind, what, end]) => {
    if (!isKnown(end) || end <= from) return [];
    const part = [{ kind, what, length: end - from }];
    from = end;
    return part;
  });
}

function showCalls(calls, open) {
  // Who is reading one is left at it.
  if (by("calls").contains(document.activeElement)) return;
  const longest = Math.max(...calls.map((call) => call["tidegate.duration_s"] ?? 0), 0.001);
  const item = (call) => {
    const parts = stretches(call);
    const told = parts.map((part) => `${part.what} ${seconds(part.length)}`).join(", ");
    const bar = el("span", { class: "fall", role: "img", "aria-label": told || "no times" }, ...parts.map((part) => {
      const span = el("span", { class: part.kind, title: `${part.what} ${seconds(part.length)}` });
      span.style.width = `${(100 * part.length) / longest}%`;
      return span;
    }));
    const status = call["http.response.status_code"];
    const what = [status, call["tidegate.outcome"], call["error.type"]].filter((part) => part !== undefined).join(" · ");
    const facts = Object.entries(call).flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, Array.isArray(value) ? value.join(", ") : String(value))]);
    const isBad = call["tidegate.outcome"] !== "completed";
    const details = el("details", { open: open.has(call.trace_id + call.time) },
      el("summary", {}, el("time", { datetime: call.time }, clock(call.time)), el("span", {}, name(call["gen_ai.request.model"], "no model")),
        el("span", { class: `what ${isBad ? "bad" : ""}`, title: what }, isBad ? `▲ ${what}` : what), el("span", { class: "took" }, seconds(call["tidegate.duration_s"])), bar),
      el("dl", { class: "facts" }, ...facts));
    details.addEventListener("toggle", () => (details.open ? open.add(call.trace_id + call.time) : open.delete(call.trace_id + call.time)));
    return el("li", {}, details);
  };
  const none = el("li", {}, el("p", { class: "quiet panel" }, "None in the last hour."));
  by("calls").replaceChildren(...(calls.length ? calls.map(item) : [none]));
}

// === policies, spend, usage ===

const MOST_FACTS = 10;
const WORST = /^(open|half_open|half-open|shut|ejected|unhealthy|draining)$/;

// What a state says, by the way to each value; what is nought or absent says nothing.
function leaves(state, way = []) {
  if (state === null || state === 0 || state === false || state === "") return [];
  if (typeof state !== "object") return [[way.join(" · ").replaceAll("_", " "), typeof state === "number" ? count(state) : String(state)]];
  return Object.entries(state).flatMap(([key, value]) => leaves(value, Array.isArray(state) ? way : [...way, key]));
}

function facts(state) {
  const all = leaves(state);
  const shown = all.slice(0, MOST_FACTS).flatMap(([way, text]) => [el("dt", {}, way || "is"), el("dd", { class: WORST.test(text) ? "warn" : undefined }, WORST.test(text) ? `▲ ${text}` : text)]);
  const rest = all.length > MOST_FACTS ? el("p", { class: "quiet" }, `and ${all.length - MOST_FACTS} more at /policies`) : null;
  return all.length ? [el("dl", { class: "facts" }, ...shown), rest] : [];
}

function meter(label, share, text) {
  const bar = el("span", { class: "meter", "aria-hidden": "true" }, el("span", { class: share >= 0.8 ? "high" : undefined }));
  bar.firstChild.style.width = `${Math.min(100, 100 * share)}%`;
  return [el("dt", {}, label), el("dd", { class: share >= 0.8 ? "warn" : undefined }, share >= 0.8 ? `▲ ${text}` : text, bar)];
}

const breakerOf = (state) => [name(state.model ?? "", "all models"), state.region].filter(Boolean).join(", ");

// How a policy shows what it says of something; others show whatever it is.
const PANELS = {
  breakers: (states) => {
    const shut = states.filter((state) => state.state !== "closed" || state.rate_gates_closed > 0);
    const lines = shut.slice(0, MOST_FACTS).flatMap((state) => [el("dt", {}, breakerOf(state)),
      el("dd", { class: "warn" }, `▲ ${state.state !== "closed" ? state.state.replace("_", " ") : "rate gate closed"}${state.why ? `: ${state.why}` : ""}`)]);
    const sum = (key) => states.reduce((all, state) => all + (state[key] ?? 0), 0);
    return [el("p", { class: shut.length ? "warn" : "good" }, shut.length ? `▲ ${shut.length} of ${states.length} let no or few calls through` : `● all ${states.length} closed: calls go through`),
      el("dl", { class: "facts" }, ...lines),
      el("p", { class: "quiet" }, `opened ${count(sum("opened"))} times; refused ${count(sum("refused_by_breaker"))} calls, and ${count(sum("refused_by_gate"))} by rate gates`)];
  },
  limits: (states) => {
    const rows = Object.entries(states).filter(([, state]) => isKnown(state.limit) && state.in_use + state.queue > 0).sort(([, one], [, other]) => other.in_use / other.limit - one.in_use / one.limit);
    if (!rows.length) return [el("p", { class: "quiet" }, "Nobody is in it.")];
    return [el("dl", { class: "facts" }, ...rows.slice(0, MOST_FACTS).flatMap(([model, state]) =>
      meter(name(model, "no model"), state.in_use / state.limit, `${count(state.in_use)} of ${count(state.limit)}${state.queue ? `, ${count(state.queue)} wait` : ""}`)))];
  },
  quotas: (state) => {
    const rows = (state.most_used ?? []).slice(0, MOST_FACTS).flatMap((budget) =>
      meter(`${budget.of.replaceAll("_", " ")}${budget.who ? ` of ${budget.who}` : ""}`, budget.percent / 100, `${count(budget.used)} of ${count(budget.limit)} (${count(budget.percent)} %)`));
    const refused = state.mode === "observe" ? `observes; would have refused ${count(state.would_have_refused ?? 0)}` : `refused ${count(state.refused ?? 0)}`;
    return [el("dl", { class: "facts" }, ...rows), el("p", { class: "quiet" }, `window: ${state.window ?? NONE}; ${refused}`)];
  },
};

function showPolicies(policies, isBypassed) {
  // Whether policies are bypassed is said above all of them.
  const shown = Object.entries(policies).filter(([policy]) => policy !== "bypass");
  const panels = shown.flatMap(([policy, all]) => Object.entries(all).flatMap(([about, state]) => {
    const inside = (PANELS[policy] ?? facts)(state).filter(Boolean);
    return inside.length ? [el("div", { class: "panel", "data-policy": policy }, el("h3", {}, `${policy.replaceAll("_", " ")}: ${about.replaceAll("_", " ")}`), ...inside)] : [];
  }));
  if (isBypassed) panels.unshift(el("p", { class: "panel warn" }, "▲ Policies are bypassed: they look on and act on no call. `tidegate bypass off` has them act again."));
  by("policies").replaceChildren(...(panels.length ? panels : [el("p", { class: "quiet" }, "None is configured.")]));
}

function bars(rows, text) {
  const most = Math.max(...rows.map(([, value]) => value), 1e-12);
  return el("dl", { class: "facts" }, ...rows.flatMap(([label, value]) => {
    const bar = el("span", { class: "meter", "aria-hidden": "true" }, el("span"));
    bar.firstChild.style.width = `${(100 * value) / most}%`;
    return [el("dt", {}, label), el("dd", {}, text(value), bar)];
  }));
}

// What was spent this month, against its budget where there is one.
function monthPanel(spend) {
  const { total, models, callers } = spend;
  const budget = (part) => (isKnown(part.used_ratio) ? part.used_ratio : 0);
  const line = (label, part) => isKnown(part.budget_usd)
    ? meter(label, budget(part), `${dollars(part.cost_usd)} of ${dollars(part.budget_usd)} (${percent(part.used_ratio)})`)
    : [el("dt", {}, label), el("dd", {}, dollars(part.cost_usd))];
  const forecast = isKnown(total.forecast_usd) ? `about ${dollars(total.forecast_usd)}` : `${NONE} (too few days so far)`;
  const costly = (parts) => parts.filter((part) => part.cost_usd > 0 || isKnown(part.budget_usd)).slice(0, 8);
  const isWhole = !spend.since || spend.since.startsWith(`${spend.month}-01T00:00`);
  const known = isWhole ? "" : `, known since ${spend.since.slice(0, 16).replace("T", " ")}`;
  return el("div", { class: "panel" }, el("h3", {}, `${spend.month}, ${spend.time_zone}${known}`),
    el("dl", { class: "facts" }, ...line("in all", total), el("dt", {}, "by its end"), el("dd", {}, forecast),
      ...costly(models).flatMap((part) => line(part.model, part)),
      ...costly(callers).filter((part) => part.caller !== "").flatMap((part) => line(`caller ${part.caller}`, part))));
}

function showSpend(live, spend) {
  const rows = live.rows.filter((row) => row.cost_usd > 0).sort((one, other) => other.cost_usd - one.cost_usd).slice(0, 12).map((row) => [row.model, row.cost_usd]);
  const now = rows.length ? el("div", { class: "panel" }, el("h3", {}, "In the window above"), bars(rows, dollars)) : el("p", { class: "quiet" }, "No call in this window has a price.");
  by("spend").replaceChildren(...(spend ? [monthPanel(spend), now] : [now]));
}

const SIGNALS = {
  duration_p99_s: ["P99", seconds], first_token_p99_s: ["First token P99", seconds], error_ratio: ["Error ratio", percent],
  success_ratio: ["Success ratio", percent], job_success_ratio: ["Success ratio of jobs", percent], tokens_1h: ["Tokens of an hour", count], cost_usd_1h: ["Cost of an hour", dollars],
};

function showBaseline(baseline) {
  by("baseline-section").hidden = !baseline;
  if (!baseline) return;
  const inState = (state) => baseline.findings.filter((finding) => finding.state === state);
  const unusual = inState("unusual").map((finding) => {
    const [signal, text] = SIGNALS[finding.signal] ?? [finding.signal, count];
    return el("p", { class: "panel alert" }, el("span", { class: "bad", "aria-hidden": "true" }, "▲"),
      el("span", {}, el("strong", {}, finding.model), ` ${signal} ${text(finding.value)}, ${finding.side === "high" ? "over" : "under"} ${text(finding.limit)}; since ${clock(finding.unusual_since)}`));
  });
  const lacking = inState("too_little_history").length;
  const rest = `${baseline.findings.length - lacking} signals can be judged by what was before${lacking ? `; ${lacking} have too little history` : ""}.`;
  by("baseline").replaceChildren(...unusual, el("p", { class: "quiet" }, unusual.length ? rest : `Nothing is out of the ordinary. ${rest}`));
}

function showUsage(live) {
  const silent = live.rows.filter((row) => row.usage_absent > 0);
  by("usage-section").hidden = silent.length === 0;
  const lines = silent.slice(0, 12).map((row) => el("li", {}, el("strong", {}, row.model), `: ${count(row.usage_absent)} of ${count(row.calls)} calls`));
  by("usage").replaceChildren(el("ul", { class: "panel" }, ...lines),
    el("p", { class: "quiet" }, "Their tokens and cost are in no figure. Streams of OpenAI’s interface state usage only where they are asked: set stream_options.include_usage in the application, or `include_usage: add` on the route."));
}
