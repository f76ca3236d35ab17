"""Suites: examples beside the task's own that every candidate must hold on."""
