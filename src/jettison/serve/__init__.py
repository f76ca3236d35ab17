"""The gateway: a release behind HTTP, lean first."""
