// The charts: uPlot, with colours of the theme, and dashes for those who see no colours.
"use strict";

const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5], [1, 4]];
const charts = new Map();
// A chart shows ten minutes at least: two moments make no slope.
const LEAST_S = 600;

const colour = (variable) => getComputedStyle(document.documentElement).getPropertyValue(variable).trim();

function axis(values, extra) {
  return {
    stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 },
    font: "12px system-ui, sans-serif", values, ...extra,
  };
}

function series(label, number, value, extra = {}) {
  const stroke = colour(`--c${number + 1}`);
  return { label, stroke, width: 2, dash: DASHES[number], spanGaps: false, points: { size: 5 }, value: (_, raw) => value(raw), ...extra };
}

// Lines at values that mean something, such as a threshold.
function marks(values) {
  return {
    hooks: {
      draw: [(chart) => {
        const context = chart.ctx;
        context.save();
        context.strokeStyle = colour("--bad");
        context.setLineDash([3, 5]);
        for (const value of values.filter((value) => value < chart.scales.y.max)) {
          const y = Math.round(chart.valToPos(value, "y", true));
          context.beginPath();
          context.moveTo(chart.bbox.left, y);
          context.lineTo(chart.bbox.left + chart.bbox.width, y);
          context.stroke();
        }
        context.restore();
      }],
    },
  };
}

// From when to when a chart reaches.
function span(times) {
  const last = times.at(-1) ?? 0;
  return [Math.min(times[0] ?? last, last - LEAST_S), last];
}

// Draws data, or draws it anew; `says` tells it to those who do not see it.
function draw(id, lines, data, value, says, thresholds = []) {
  const place = by(id);
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", says);
  const shape = JSON.stringify(lines.map((line) => line.label));
  let known = charts.get(id);
  if (known && known.shape === shape) {
    known.chart.setData(data);
    return;
  }
  if (known) known.chart.destroy();
  const options = {
    width: place.clientWidth, height: 220,
    scales: { x: { time: true, range: (chart) => span(chart.data[0]) }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.08 : 1] } },
    axes: [axis((_, ticks) => ticks.map((tick) => new Date(tick * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false }))),
      axis((_, ticks) => ticks.map(value), { size: 62 })],
    series: [{ value: (_, raw) => (raw ? new Date(raw * 1000).toLocaleTimeString([], { hour12: false }) : NONE) }, ...lines],
    legend: { live: true }, cursor: { points: { size: 7 } }, plugins: [marks(thresholds)],
  };
  known = { shape, chart: new uPlot(options, data, place) };
  charts.set(id, known);
}

function resize() {
  for (const [id, { chart }] of charts) chart.setSize({ width: by(id).clientWidth, height: 220 });
}

// Colours are those of the theme in which a chart was made.
function forgetCharts() {
  for (const { chart } of charts.values()) chart.destroy();
  charts.clear();
}

function drawHour(hour) {
  const minutes = hour.minutes;
  const times = minutes.map((minute) => minute.time);
  const of = (read) => minutes.map((minute) => { const value = read(minute); return isKnown(value) ? value : null; });
  const total = hour.total;
  draw("chart-calls", [series("calls", 0, count, { fill: `${colour("--c1")}22` }), series("errors", 2, count)],
    [times, of((minute) => minute.calls), of((minute) => minute.errors ?? 0)], count,
    `${count(total.calls)} calls in the last hour, of which ${percent(total.error_ratio)} failed`);
  const latency = total.latency_s ?? {};
  draw("chart-latency", [series("P50", 0, seconds), series("P90", 1, seconds), series("P99", 4, seconds)],
    [times, ...["p50", "p90", "p99"].map((share) => of((minute) => minute.latency_s?.[share]))], seconds,
    `Over the hour P50 is ${seconds(latency.p50)}, P90 ${seconds(latency.p90)} and P99 ${seconds(latency.p99)}`, [2, 3]);
  const models = hour.models;
  draw("chart-models", models.map((model, number) => series(short(model.model), number, seconds)),
    [times, ...models.map((model) => model.latency_p99_s)], seconds,
    `P99 of ${models.length} models; the table of models has the figures`, [2, 3]);
  draw("chart-tokens", [series("input", 0, count), series("output", 3, count)],
    [times, of((minute) => minute.input_tokens), of((minute) => minute.output_tokens)], count,
    `${count(total.tokens?.input ?? null)} input and ${count(total.tokens?.output ?? null)} output tokens in the last hour`);
}
