"""Users of the gateway: each asks once, some say afterwards what the right answer would have been.

    python traffic.py URL --texts shop.jsonl --n 600
    python traffic.py URL --texts shop.jsonl travel.jsonl --second-share 0.4 --n 900 --until FILE drift

With `--until FILE WORD` it asks until the file holds the word, and fails where `--n` requests were not
enough. It prints one line of JSON: requests, seconds, who answered, what share was right, and of the second
file's requests that treatment got, what share its lean model answered (`lean_share_new`).
"""

import argparse
import http.client
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit


def main() -> int:
    given = _arguments()
    rng = random.Random(given.seed)
    pools = [[json.loads(line) for line in path.read_text().splitlines()] for path in given.texts]
    for pool in pools:
        rng.shuffle(pool)
    connection = http.client.HTTPConnection(urlsplit(given.url).netloc, timeout=20)
    arms, arms_new, right, asked, failed = Counter(), Counter(), Counter(), Counter(), 0
    begun, met = time.monotonic(), given.until is None
    for number in range(given.n):
        if given.until is not None and number % 20 == 0 and _holds(*given.until):
            met = True
            break
        pool = pools[-1] if len(pools) > 1 and rng.random() < given.second_share else pools[0]
        row = pool[number % len(pool)]
        told = _ask(connection, row["text"], key=f"{given.seed}-{number}")
        if told is None:
            failed += 1
            continue
        where = "new" if pool is pools[-1] and len(pools) > 1 else "known"
        arms[told["arm"]] += 1
        if where == "new":
            arms_new[told["arm"]] += 1
        asked[where] += 1
        right[where] += told["label"] == row["label"]
        if rng.random() < given.label_share:
            _send(connection, "/v1/feedback", {"request_id": told["id"], "label": row["label"]})
        _pace(begun, number + 1, given.rate)
    # A release may be a cascade itself: then its own fallback has passed a request on.
    passed_on = sum(n for arm, n in arms_new.items() if arm.endswith("/fallback"))
    lean = sum(
        n for arm, n in arms_new.items() if arm.startswith("treatment/lean") and "fallback" not in arm
    )
    said = {
        "n": sum(asked.values()),
        "seconds": round(time.monotonic() - begun, 1),
        "failed": failed,
        "by": dict(arms.most_common()),
        "right": {where: round(right[where] / n, 4) for where, n in asked.items()},
        "lean_share_new": round(lean / (lean + passed_on), 3) if lean + passed_on else None,
    }
    print(json.dumps(said))
    return 0 if met and not failed else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    parser.add_argument("--second-share", type=float, default=0.0)
    parser.add_argument("--n", type=int, required=True)
    parser.add_argument("--label-share", type=float, default=0.7)
    parser.add_argument("--rate", type=float, default=150.0, help="requests a second")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until", nargs=2, metavar=("FILE", "WORD"))
    return parser.parse_args()


def _ask(connection: http.client.HTTPConnection, text: str, *, key: str) -> dict[str, str] | None:
    body = {"model": "desk", "messages": [{"role": "user", "content": text}], "user": key}
    status, headers, content = _send(connection, "/v1/chat/completions", body)
    if status != 200:
        print(f"{status}: {content[:200]!r}", file=sys.stderr)
        return None
    return {
        "id": headers["x-request-id"],
        "arm": headers.get("x-jettison-route") or headers.get("x-jettison-arm", ""),
        "label": json.loads(content)["choices"][0]["message"]["content"],
    }


def _send(
    connection: http.client.HTTPConnection, path: str, body: object
) -> tuple[int, dict[str, str], bytes]:
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    reply = connection.getresponse()
    return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()


def _holds(file: str, word: str) -> bool:
    path = Path(file)
    return path.exists() and word in path.read_text()


def _pace(begun: float, n: int, rate: float) -> None:
    early = begun + n / rate - time.monotonic()
    if early > 0:
        time.sleep(early)


if __name__ == "__main__":
    sys.exit(main())
