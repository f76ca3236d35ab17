"""Runs Locust against an address: one process, users without a pause, in an environment of its own."""

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

LOCUST = "locust==2.47.0"


def run_locust(url: str, body: bytes, *, users: int, run_s: float, peers: Path) -> dict[str, str]:
    """What Locust reports of all requests together, by the names of its columns.

    Args:
        url: Without a path; `/x` is posted to.
        body: Of every request.
        users: Each asks again as soon as it is answered.
        run_s: Seconds.
        peers: Where the environment stands, or is made.
    """
    home = peers / "locust"
    if not (home / "bin" / "locust").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(home / "bin" / "pip"), "install", "-qq", LOCUST], check=True)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "file.py"
        script.write_text(
            "from locust import FastHttpUser, task, constant\n"
            "class User(FastHttpUser):\n"
            "    wait_time = constant(0)\n"
            "    @task\n"
            "    def ask(self):\n"
            f"        self.client.post('/x', data={body!r})\n"
        )
        command = [
            str(home / "bin" / "locust"), "-f", str(script), "--headless", "--host", url, "-u", str(users),
            "-r", str(users), "-t", f"{run_s:g}s", "--csv", f"{folder}/out", "--only-summary",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
        with (Path(folder) / "out_stats.csv").open() as file:
            return next(row for row in csv.DictReader(file) if row["Name"] == "Aggregated")
