"""Grafana's boards, one module each."""
