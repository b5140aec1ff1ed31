"""Of what boards are made: panels, queries, variables, and how they look in Grafana's JSON (10.0 and later).

A query names the series that it may choose from by a word in its braces, which becomes matchers on the board's variables:
`@models` and `@pods` for what sidecars count (by pod), `@fleet_models` and `@fleet` for what Prometheus' rules have
recorded of it (of all pods together).
"""

import json
import re
from urllib.parse import quote

# Grafana's own colours for what is well, what needs a look, and what needs somebody now.
GOOD, LOOK, ACT = "green", "orange", "red"

PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
TRACES = {"type": "tempo", "uid": "${traces}"}

# The address that dashboards/README.md has replaced by one's own.
RUNBOOKS = "https://tidegate.example/runbooks"

_FLEET = ["cluster", "namespace"]
_MATCHERS = {
    "@fleet": _FLEET,
    "@fleet_models": [*_FLEET, "model"],
    "@pods": [*_FLEET, "pod"],
    "@models": [*_FLEET, "pod", "model"],
}


def expand(expression):
    """The expression with its words replaced by matchers."""

    def matchers(found):
        return ", ".join(f'{label}=~"${label}"' for label in _MATCHERS[found.group(0)])

    return re.sub(r"@\w+", matchers, expression.strip())


# === Queries ===


def q(expression, legend="", **more):
    """A query over time."""
    return {"datasource": PROMETHEUS, "editorMode": "code", "expr": expand(expression), "legendFormat": legend, "range": True} | more


def now(expression, legend="", **more):
    """A query for how it is at the end of the time that is shown."""
    return q(expression, legend, **more) | {"range": False, "instant": True}


def quantiles(histogram, by="", matchers="@models", which=(0.5, 0.9, 0.99), legend=""):
    """Quantiles of a histogram, drawn from its buckets over all pods: exact at bounds, interpolated between them."""
    levels = ", ".join(filter(None, [by, "le"]))
    return [
        q(
            f"histogram_quantile({level}, sum by ({levels}) (rate({histogram}_bucket{{{matchers}}}[$__rate_interval])))",
            f"P{level * 100:g} {legend}".strip(),
        )
        for level in which
    ]


def mean(histogram, by="", matchers="@models", legend=""):
    """The mean of what a histogram counts."""
    by = f" by ({by}) " if by else " "
    total, count = (f"sum{by}(rate({histogram}_{part}{{{matchers}}}[$__rate_interval]))" for part in ("sum", "count"))
    return q(f"{total} / ({count} > 0)", legend)


# === Panels ===


def _panel(kind, title, description, queries, unit, *, width, height=8, steps=None, defaults=None, options=None, **more):
    references = {query["refId"] for query in queries if "refId" in query}
    names = (name for name in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if name not in references)
    thresholds = [{"color": GOOD, "value": None}, *({"color": color, "value": value} for value, color in steps or [])]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": PROMETHEUS,
        "targets": [{"refId": query.get("refId") or next(names)} | query for query in queries],
        "fieldConfig": {
            "defaults": {"unit": unit, "noValue": "none", "thresholds": {"mode": "absolute", "steps": thresholds}} | (defaults or {}),
            "overrides": more.pop("overrides", []),
        },
        "options": options or {},
        "gridPos": {"w": width, "h": height},
    } | more


def lines(title, description, unit, *queries, width=8, stack=False, steps=None, low=0, high=None, links=(), height=8):
    """Lines over time; a limit of `steps` is drawn as a dashed line."""
    custom = {"lineWidth": 1, "fillOpacity": 30 if stack else 8, "showPoints": "never", "spanNulls": False}
    custom |= {"stacking": {"mode": "normal" if stack else "none", "group": "A"}}
    custom |= {"thresholdsStyle": {"mode": "dashed" if steps else "off"}}
    defaults = {"custom": custom, "color": {"mode": "palette-classic"}, "links": list(links)}
    defaults |= {name: value for name, value in (("min", low), ("max", high)) if value is not None}
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["mean", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel("timeseries", title, description, queries, unit, width=width, height=height, steps=steps, defaults=defaults, options=options)


def number(title, description, unit, query, *, width=3, steps=None, decimals=None, colour="value"):
    """One number, with a line of how it came to be where the query is one over time."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": colour if steps else "none",
        "graphMode": "area" if query["range"] else "none",
        "textMode": "auto",
    }
    defaults = {"decimals": decimals} if decimals is not None else None
    return _panel("stat", title, description, [query], unit, width=width, height=4, steps=steps, defaults=defaults, options=options)


def states(title, description, words, *queries, width=12, height=8):
    """What was when: `words` are pairs of a value's name and its colour, from 0 on."""
    mapping = {str(value): {"text": text, "color": color, "index": value} for value, (text, color) in enumerate(words)}
    defaults = {
        "mappings": [{"type": "value", "options": mapping}],
        "custom": {"fillOpacity": 80, "lineWidth": 0},
        "color": {"mode": "thresholds"},
    }
    options = {"showValue": "never", "mergeValues": True, "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}}
    steps = [(value, color) for value, (_, color) in enumerate(words) if value]
    return _panel("state-timeline", title, description, queries, "none", width=width, height=height, steps=steps, defaults=defaults, options=options)


def heat(title, description, unit, histogram, matchers="@models", width=8):
    """How many took how long, over time."""
    query = q(f"sum by (le) (increase({histogram}_bucket{{{matchers}}}[$__rate_interval]))", "{{le}}", format="heatmap")
    options = {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Spectral", "steps": 64, "exponent": 0.5, "reverse": False},
        "yAxis": {"unit": unit, "axisPlacement": "left"},
        "cellGap": 1,
        "tooltip": {"mode": "single", "yHistogram": True},
        "legend": {"show": False},
    }
    return _panel("heatmap", title, description, [query], unit, width=width, options=options)


def table(title, description, rows, columns, *, width=24, height=8, links=()):
    """A table with a line for each set of the labels `rows`; `columns` are (name, unit, expression, limits)."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    queries = [
        now(expression, refId=letter, format="table") for letter, (_, _, expression, _) in zip(letters, columns)
    ]
    names = {f"Value #{letter}": name for letter, (name, *_) in zip(letters, columns)}
    order = {label: at for at, label in enumerate([*rows, *names])}
    overrides = [_column(name, unit, steps) for name, unit, _, steps in columns]
    overrides += [{"matcher": {"id": "byName", "options": rows[-1]}, "properties": [{"id": "links", "value": list(links)}]}] if links else []
    transformations = [
        {"id": "merge", "options": {}},
        {"id": "filterFieldsByName", "options": {"include": {"names": [*rows, *names]}}},
        {"id": "organize", "options": {"indexByName": order, "renameByName": names}},
    ]
    options = {"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": columns[0][0], "desc": True}]}
    defaults = {"custom": {"align": "auto", "filterable": True}}
    return _panel(
        "table", title, description, queries, "none", width=width, height=height,
        defaults=defaults, options=options, overrides=overrides, transformations=transformations,
    )


def _column(name, unit, steps):
    properties = [{"id": "unit", "value": unit}, {"id": "decimals", "value": 2}]
    if steps:
        limits = [{"color": "transparent", "value": None}, *({"color": color, "value": value} for value, color in steps)]
        properties += [
            {"id": "thresholds", "value": {"mode": "absolute", "steps": limits}},
            {"id": "custom.cellOptions", "value": {"type": "color-background", "mode": "basic"}},
        ]
    return {"matcher": {"id": "byName", "options": name}, "properties": properties}


# === Links ===


def runbook(alert):
    """To the page of an alert."""
    return {"title": f"Runbook: {alert}", "url": f"{RUNBOOKS}/{alert}.md", "targetBlank": True}


def board(title, uid, variables):
    """To another board, at the same time and with these variables, given as text."""
    return {"title": title, "url": f"/d/{uid}?${{__url_time_range}}&{variables}"}


def traces(title, condition):
    """To the traces of such calls (TraceQL), at the same time."""
    query = {"refId": "A", "queryType": "traceql", "query": f"{{ resource.service.name = `tidegate` && {condition} }}"}
    pane = {"datasource": "${traces}", "queries": [query], "range": {"from": "${__from}", "to": "${__to}"}}
    # Grafana puts its own variables in, so they stay as they are.
    parts = re.split(r"(\$\{\w+\})", json.dumps({"a": pane}, separators=(",", ":")))
    panes = "".join(part if part.startswith("${") else quote(part, safe="") for part in parts)
    return {"title": title, "url": f"/explore?schemaVersion=1&panes={panes}", "targetBlank": True}


SLOW = traces("Traces: slow calls", "duration > 2s")
FAILED = traces("Traces: failed calls", "status = error")

# === Variables and boards ===

_TEXTS = {
    "cluster": ("Cluster", "label_values(tidegate_build_info, cluster)"),
    "namespace": ("Namespace", 'label_values(tidegate_build_info{cluster=~"$cluster"}, namespace)'),
    "pod": ("Pod", 'label_values(tidegate_build_info{cluster=~"$cluster", namespace=~"$namespace"}, pod)'),
    "model": ("Model", 'label_values(tidegate_calls_total{cluster=~"$cluster", namespace=~"$namespace"}, model)'),
}


def _variable(name):
    label, query = _TEXTS[name]
    every = {"text": "All", "value": "$__all"}
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": PROMETHEUS,
        "query": {"query": query, "refId": name},
        "definition": query,
        # `.*` holds for series without the label, too.
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": every | {"selected": True},
        "refresh": 2,
        "sort": 1,
    }


def _source(name, label, kind):
    return {"type": "datasource", "name": name, "label": label, "query": kind, "refresh": 1, "hide": 0}


def _annotation(name, colour, expression, title, enable=True):
    return {
        "name": name,
        "datasource": PROMETHEUS,
        "enable": enable,
        "iconColor": colour,
        "expr": expand(expression),
        "step": "30s",
        "titleFormat": title,
        "target": {"refId": "A"},
    }


_ANNOTATIONS = [
    _annotation("Alerts", ACT, 'ALERTS{alertstate="firing", alertname=~"Tidegate.*"}', "{{alertname}} {{model}}{{upstream}}", enable=False),
    _annotation(
        "Breakers", LOOK,
        'sum by (upstream, region, model, to) (increase(tidegate_breaker_transitions_total{@pods, to=~"open|closed"}[1m])) > 0',
        "{{upstream}} {{region}} {{model}}: {{to}}",
    ),
    _annotation("Configuration", "blue", "sum by (pod, result) (increase(tidegate_config_reloads_total{@pods}[1m])) > 0", "reload {{result}} {{pod}}"),
    # Whoever runs a load test marks its time with this tag; see dashboards/README.md.
    {"name": "Load tests", "datasource": {"type": "grafana", "uid": "-- Grafana --"}, "enable": True, "iconColor": "purple",
     "target": {"type": "tags", "tags": ["tidegate-load"], "matchAny": True, "limit": 100}},
]


def build(uid, title, description, variables, rows):
    """A board: `rows` are pairs of a question and the panels that answer it."""
    panels, y = [], 0
    for question, members in rows:
        panels.append({"type": "row", "title": question, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        y += 1
        x = line = 0
        for panel in members:
            place = panel["gridPos"]
            if x + place["w"] > 24:
                x, y, line = 0, y + line, 0
            panels.append(panel | {"gridPos": {"x": x, "y": y} | place})
            x, line = x + place["w"], max(line, place["h"])
        y += line
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    sources = [_source("datasource", "Prometheus", "prometheus")]
    if "${traces}" in json.dumps(panels):
        sources.append(_source("traces", "Traces", "tempo"))
    return {
        "uid": uid,
        "title": f"Tidegate / {title}",
        "description": description,
        "tags": ["tidegate"],
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": 39,
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "timezone": "browser",
        "links": [{"type": "dashboards", "title": "Tidegate", "tags": ["tidegate"], "asDropdown": True, "includeVars": True, "keepTime": True}],
        "templating": {"list": [*sources, *map(_variable, variables)]},
        "annotations": {"list": _ANNOTATIONS},
        "panels": panels,
    }
