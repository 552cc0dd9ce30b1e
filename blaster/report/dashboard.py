"""A Grafana dashboard for the metrics of a run, as JSON to import or to provision.

The form is Grafana's dashboard schema (schemaVersion 39 and later), with the data source and the
instances as variables. Every query names metrics of :mod:`blaster.report.metrics` only.
"""

from __future__ import annotations

import json
from typing import Any

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
BY = '{instance=~"$instance"}'
WINDOW = "[$__rate_interval]"


def _quantile(share: float, metric: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{BY}{WINDOW})))"


PANELS: list[tuple[str, str, str, list[tuple[str, str]]]] = [
    (
        "Rate",
        "timeseries",
        "none",
        [
            (f"sum(rate(blaster_scheduled_spans_total{BY}{WINDOW}))", "offered"),
            (
                f"sum by (outcome) (rate(blaster_ended_spans_total{BY}{WINDOW}))",
                "{{outcome}}",
            ),
        ],
    ),
    (
        "Latency from the scheduled time",
        "timeseries",
        "s",
        [
            (_quantile(share, "blaster_response_seconds"), name)
            for share, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"))
        ],
    ),
    (
        "Latency heat map",
        "heatmap",
        "s",
        [
            (
                f"sum by (le) (increase(blaster_response_seconds_bucket{BY}{WINDOW}))",
                "{{le}}",
            )
        ],
    ),
    (
        "Requests by status",
        "timeseries",
        "reqps",
        [
            (
                f"sum by (status) (rate(blaster_ended_requests_total{BY}{WINDOW}))",
                "{{status}}",
            ),
            (f"sum(rate(blaster_retried_requests_total{BY}{WINDOW}))", "retried"),
        ],
    ),
    (
        "In flight and backlog",
        "timeseries",
        "none",
        [
            (f"sum(blaster_requests_in_flight{BY})", "requests in flight"),
            (f"sum(blaster_backlog_spans{BY})", "spans due and not sent"),
        ],
    ),
    (
        "CPU, of one core",
        "timeseries",
        "percentunit",
        [
            (f"sum(blaster_target_cpu_ratio{BY})", "target"),
            (f"sum(blaster_generator_cpu_ratio{BY})", "generator"),
        ],
    ),
    (
        "Memory",
        "timeseries",
        "bytes",
        [
            (f"sum(blaster_target_memory_bytes{BY})", "target"),
            (f"sum(blaster_generator_memory_bytes{BY})", "generator"),
        ],
    ),
    (
        "Throughput",
        "timeseries",
        "Bps",
        [(f"sum(rate(blaster_sent_bytes_total{BY}{WINDOW}))", "sent")],
    ),
]

STATS: list[tuple[str, str, str]] = [
    ("Elapsed", "s", f"max(blaster_elapsed_seconds{BY})"),
    ("Stage", "none", f"max(blaster_stage{BY})"),
    (
        "Accepted",
        "none",
        f'sum(rate(blaster_ended_spans_total{{outcome="accepted",{BY[1:]}{WINDOW}))',
    ),
    ("Lost spans", "none", f'sum(blaster_ended_spans_total{{outcome!="accepted",{BY[1:]})'),
    ("p99", "s", _quantile(0.99, "blaster_response_seconds")),
    (
        "Share of the plan",
        "percentunit",
        f"max(blaster_elapsed_seconds{BY} / blaster_planned_seconds{BY})",
    ),
]


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana's model."""
    panels = [
        _panel(number, title, "stat", unit, [(query, "")], (4 * number, 0, 4, 4))
        for number, (title, unit, query) in enumerate(STATS)
    ]
    for number, (title, kind, unit, queries) in enumerate(PANELS):
        place = (12 * (number % 2), 4 + 8 * (number // 2), 12, 8)
        panels.append(_panel(len(STATS) + number, title, kind, unit, queries, place))
    return {
        "uid": "blaster",
        "title": "blaster",
        "description": "A load test while it runs: blaster run --metrics-port or --otlp-metrics.",
        "tags": ["blaster", "load test", "opentelemetry"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_data_source(), _instances()]},
        "annotations": {"list": []},
        "links": [],
        "panels": panels,
    }


def to_json() -> str:
    """The dashboard as indented JSON."""
    return json.dumps(dashboard(), indent=2) + "\n"


def _panel(
    number: int,
    title: str,
    kind: str,
    unit: str,
    queries: list[tuple[str, str]],
    place: tuple[int, int, int, int],
) -> dict[str, Any]:
    x, y, width, height = place
    return {
        "id": number + 1,
        "type": kind,
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": _options(kind),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": legend,
                "range": True,
                **({"format": "heatmap"} if kind == "heatmap" else {}),
            }
            for index, (query, legend) in enumerate(queries)
        ],
    }


def _options(kind: str) -> dict[str, Any]:
    if kind == "stat":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
        }
    if kind == "heatmap":
        return {"calculate": False, "yAxis": {"unit": "s"}, "tooltip": {"mode": "single"}}
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _data_source() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "hide": 0,
    }


def _instances() -> dict[str, Any]:
    query = "label_values(blaster_info, instance)"
    return {
        "name": "instance",
        "label": "Instance",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": "instances"},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "hide": 0,
    }
