"""Records in, decision out: gates, verdicts, reasons. Runs without any ML runtime."""
