"""Drift beside Evidently: time, memory and what is found, on a million records and on real streams.

    python benchmarks/drift.py [--n 1000000] [--rounds 5] [--peers DIR] [--part speed|windows|clean|streams]

The answers are real: the CLINC150 classifier's to in-scope and out-of-scope queries, drawn with replacement
into a log of the gateway's own format, which both read. Each check is a process of its own; rounds
run both in random order. Ours is `jettison drift` without imports and without loading the model that tells
languages (both count in the figure with imports): it also compares what Evidently is
not asked for (language, script, lengths, errors). It looks at texts on an even sample of 10,000,
Evidently at all of them; so without texts is told too. Prints one JSON object a figure.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from beside import Timing, figure, ratio
from drift_answers import Answers, background_texts, clinc_answers, sentiment_answers
from drift_streams import stream_figures
from jettison.evaluate.profile import reference_sketch
from jettison.monitor.drift import judge_drift
from jettison.monitor.drift_window import Window, newest_window
from jettison.record import Record, records_table
from jettison.release.describe import languages_of
from jettison.release.sketch import Sketch
from jettison.stats.binomial import clopper_pearson
from peer_evidently import PACKAGES, evidently_python, peak_bytes

PARTS = ("speed", "windows", "clean", "streams")
SEGMENT = 50_000
ALPHA = 0.01
"""Of `jettison drift`, unless asked for another."""
N_REFERENCE, N_WINDOW = 1500, 500
"""Of the part `clean`."""
PEER = PACKAGES[0].replace("==", " ")


def write_log(
    folder: Path, parts: Sequence[Sequence[Record]], shares: Sequence[float], n: int, *,
    rng: np.random.Generator, keeps_texts: bool = True, is_once: bool = False,
) -> Path:  # fmt: skip
    """A log of `n` answers, each from a part with its share's probability; drawn anew, or `is_once`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = records_table([record for part in parts for record in part])
    if not keeps_texts:
        place = table.schema.get_field_index("input")
        table = table.set_column(place, "input", pa.nulls(table.num_rows, pa.string()))
    (folder / "segments").mkdir(parents=True)
    ends = np.cumsum([len(part) for part in parts])
    for first in range(0, n, SEGMENT):
        size = min(SEGMENT, n - first)
        part = rng.choice(len(parts), size, p=shares)
        rows = np.array([len(some) for some in parts])[part]
        rows = ends[part] - rows + np.floor(rng.random(size) * rows).astype(int)
        for k, some in enumerate(parts if is_once else ()):
            rows[part == k] = ends[k] - len(some) + rng.permutation(len(some))[: (part == k).sum()]
        some = table.take(pa.array(rows)).append_column("seq", pa.array(first + 1 + np.arange(size)))
        name = f"records-{first + 1:012d}-{first + size:012d}.parquet"
        pq.write_table(some, folder / "segments" / name, compression="zstd")
    return folder


def run_peer(python: Path, reference: Path, logs: Sequence[Path], *, with_text: bool) -> list[dict]:
    """Evidently's lines, one a log, all in one process."""
    script = Path(__file__).with_name("peer_evidently.py")
    folders = [str(log / "segments") for log in logs]
    command = [str(python), str(script), str(reference), str(int(with_text)), *folders]
    return _lines(command)


def run_ours(sketch: Path, logs: Sequence[Path]) -> list[dict]:
    """Our lines, one a log, all in one process."""
    return _lines([sys.executable, __file__, "--sketch", str(sketch), *map(str, logs)])


def _lines(command: list[str]) -> list[dict]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"a measured process died: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def check(sketch_path: Path, logs: Sequence[Path]) -> None:
    """The process of ours that is measured."""
    sketch = msgspec.json.decode(sketch_path.read_bytes(), type=Sketch)
    languages_of(["The model that tells languages is loaded, as libraries are."])
    for log in logs:
        cpu, wall = time.process_time(), time.perf_counter()
        window = newest_window(log, sketch, last=10**12)
        found = judge_drift(window, alpha=ALPHA)
        told = {
            "n": found.n_records,
            "cpu_s": time.process_time() - cpu,
            "wall_s": time.perf_counter() - wall,
            "import_cpu_s": cpu,
            "peak_bytes": peak_bytes(),
            "verdict": found.verdict,
            "drifted": [test.name for test in found.tests if test.has_drifted],
        }
        print(json.dumps(told), flush=True)


def speed(answers: Answers, sketch: Path, reference: Path, python: Path, given: argparse.Namespace) -> None:
    """CPU time and peak memory of both on one log, a process a check, interleaved."""
    rng, order = np.random.default_rng(0), random.Random(0)
    parts = [answers["clean"], answers["out of scope"]]
    for with_text in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            log = write_log(
                Path(folder) / "log", parts, (0.8, 0.2), given.n, rng=rng, keeps_texts=with_text
            )
            quarter = write_log(
                Path(folder) / "quarter", parts, (0.8, 0.2), given.n // 4, rng=rng, keeps_texts=with_text
            )
            told: dict[str, list[dict]] = {"ours": [], "peer": []}
            for _ in range(given.rounds):
                for name in order.sample(("ours", "peer"), 2):
                    told[name] += (
                        run_ours(sketch, [log])
                        if name == "ours"
                        else run_peer(python, reference, [log], with_text=with_text)
                    )
            small = run_ours(sketch, [quarter])[0]
        _tell_speed(told, small, with_text=with_text)


def _tell_speed(told: dict[str, list[dict]], small: dict, *, with_text: bool) -> None:
    name = "evidently_ratio" if with_text else "evidently_ratio_without_texts"
    spent = {one: Timing(one, [run["cpu_s"] for run in runs]) for one, runs in told.items()}
    whole = {
        one: Timing(one, [run["cpu_s"] + run["import_cpu_s"] for run in runs]) for one, runs in told.items()
    }
    facts = {
        "n": told["ours"][0]["n"],
        "rounds": len(told["ours"]),
        "ours_cpu_s": round(spent["ours"].median_s, 3),
        "peer_cpu_s": round(spent["peer"].median_s, 3),
        "ours_wall_s": round(statistics.median(run["wall_s"] for run in told["ours"]), 3),
        "peer_wall_s": round(statistics.median(run["wall_s"] for run in told["peer"]), 3),
        "ours_found": told["ours"][0]["drifted"],
        "peer_drifted_share": told["peer"][0]["drifted_share"],
        "peer_columns": told["peer"][0]["columns"],
    }
    print(figure(name, *ratio(spent["peer"], spent["ours"]), "times less CPU", PEER, **facts), flush=True)
    process = ratio(whole["peer"], whole["ours"])
    print(figure(f"{name}_with_imports", *process, "times less CPU", PEER), flush=True)
    peaks = {one: Timing(one, [run["peak_bytes"] for run in runs]) for one, runs in told.items()}
    facts = {
        "ours_bytes": int(peaks["ours"].median_s),
        "peer_bytes": int(peaks["peer"].median_s),
        "ours_bytes_of_a_quarter": small["peak_bytes"],
    }
    ending = "memory_ratio" if with_text else "memory_ratio_without_texts"
    print(
        figure(ending, *ratio(peaks["peer"], peaks["ours"]), "times less memory", PEER, **facts), flush=True
    )


def windows(answers: Answers, python: Path, given: argparse.Namespace) -> None:
    """Of windows of one size and share of out-of-scope queries, none twice, in how many each finds drift.

    CLINC150's test queries against its val queries, which are of another kind (`drift_split.py`), then both
    as one pool, of which reference and windows are drawn.
    """
    rng = np.random.default_rng(1)
    both = [*answers["reference"], *answers["clean"]]
    order = rng.permutation(len(both))
    n = len(answers["reference"])
    pool = {"reference": [both[k] for k in order[:n]], "clean": [both[k] for k in order[n:]]}
    for name, told in (("test against val", answers), ("one pool", answers | pool)):
        sketch, reference = given.workspace / "windows.json", given.workspace / "windows.parquet"
        write_reference(told["reference"], sketch, reference)
        for size in (500, 2000):
            for share in (0.0, 0.05, 0.2):
                with tempfile.TemporaryDirectory() as folder:
                    parts = [told["clean"], told["out of scope"]]
                    logs = [
                        write_log(
                            Path(folder) / str(k), parts, (1 - share, share), size, rng=rng, is_once=True
                        )
                        for k in range(given.windows)
                    ]
                    ours = run_ours(sketch, logs)
                    peer = run_peer(python, reference, logs, with_text=True)
                _tell_windows(name, size, share, ours, peer)


def _tell_windows(name: str, size: int, share: float, ours: list[dict], peer: list[dict]) -> None:
    n = len(ours)
    seen = clopper_pearson(sum(one["verdict"] == "DRIFT" for one in ours), n)
    facts = {
        "reference": name,
        "n": size,
        "new_share": share,
        "windows": n,
        "alpha": ALPHA,
        "found_by": dict(Counter(test for one in ours for test in one["drifted"]).most_common()),
        "peer_any_column": sum(one["drifted_share"] > 0 for one in peer) / n,
        "peer_half_the_columns": sum(one["drifted_share"] >= 0.5 for one in peer) / n,
        "peer_by_column": {
            column.split("=")[1].split(",")[0]: sum(
                _is_flagged(column, one["columns"][column]) for one in peer
            )
            for column in peer[0]["columns"]
        },
    }
    print(figure("found_in_windows", seen.value, seen.low, seen.high, "share", PEER, **facts), flush=True)


def _is_flagged(column: str, value: float) -> bool:
    """As Evidently's preset judges a distance: from its threshold on."""
    return value >= float(column.rsplit("threshold=", 1)[1].rstrip(")"))


def clean(answers: Answers, given: argparse.Namespace) -> None:
    """Of clean windows, each with a reference of its own from one pool, how many are called drift."""
    rng = np.random.default_rng(2)
    both = [*answers["reference"], *answers["clean"]]
    n_alarms, by = {0.05: 0, 0.01: 0}, Counter[str]()
    for _ in range(given.clean_windows):
        drawn = [both[k] for k in rng.permutation(len(both))[: N_REFERENCE + N_WINDOW]]
        known = drawn[:N_REFERENCE]
        window = Window(reference_sketch(known, [str(record.input) for record in known]))
        window.take(drawn[N_REFERENCE:])
        tests = judge_drift(window, alpha=0.05).tests
        by.update(test.name for test in tests if test.has_drifted)
        for alpha in n_alarms:
            n_alarms[alpha] += any(test.has_drifted and test.p_adjusted <= alpha for test in tests)
    for alpha, n in n_alarms.items():
        seen = clopper_pearson(n, given.clean_windows)
        facts = {"alpha": alpha, "windows": given.clean_windows, "n": N_WINDOW, "n_reference": N_REFERENCE}
        line = figure(
            "clean_windows_called_drift", seen.value, seen.low, seen.high, "share", "none", **facts
        )
        print(line, flush=True)
    print(json.dumps({"by_test_at_0.05": dict(by.most_common())}), flush=True)


def write_reference(records: Sequence[Record], sketch: Path, reference: Path) -> None:
    """What each of both compares with: our sketch of the reference, and its records for Evidently."""
    import pyarrow.parquet as pq

    texts = [str(record.input) for record in records]
    found = reference_sketch(records, texts, background=background_texts("clinc150"))
    sketch.write_bytes(msgspec.json.encode(found))
    pq.write_table(records_table(records), reference)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000, help="records of the speed part")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--clean-windows", type=int, default=1000)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument(
        "--half", choices=("tuning", "proof"), default="proof", help="of the texts, for streams"
    )
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "jettison-peers")
    parser.add_argument("--workspace", type=Path, default=Path(".jettison/benchmarks/drift"))
    parser.add_argument("--sketch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("logs", type=Path, nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.sketch:
        check(given.sketch, given.logs)
        return
    given.workspace.mkdir(parents=True, exist_ok=True)
    wanted = given.part or PARTS
    answers = clinc_answers(given.workspace)
    if "speed" in wanted:
        sketch, reference = given.workspace / "sketch.json", given.workspace / "reference.parquet"
        write_reference(answers["reference"], sketch, reference)
        speed(answers, sketch, reference, evidently_python(given.peers), given)
    if "windows" in wanted:
        windows(answers, evidently_python(given.peers), given)
    if "clean" in wanted:
        clean(answers, given)
    if "streams" in wanted:
        told = {"clinc150": answers, "sentiment": sentiment_answers(given.workspace)}
        for line in stream_figures(told, n_streams=given.streams, half=given.half):
            print(line, flush=True)


if __name__ == "__main__":
    main()
