"""Watches the traffic log: experiments, audits, drift, alarms. Needs no ML runtime."""
