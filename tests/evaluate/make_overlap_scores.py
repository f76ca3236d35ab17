"""Writes `overlap_scores.json`: what rouge_score 0.1.2 and sacrebleu 2.6.0 say of these pairs.

Run in an environment of its own: `pip install rouge-score==0.1.2 sacrebleu==2.6.0`.
"""

import json
import random
from pathlib import Path

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF

SENTENCE = "the cat sat on a mat , and then it's 12 dogs ran; Über-cool naïve don't U.S.A. café 日本語 x"
FIXED = [
    ("the cat sat on the mat", "the cat sat on the mat"),
    ("a cat was on the mat", "the cat sat on the mat"),
    ("", "something"),
    ("something", ""),
    ("!!!", "..."),
    ("a", "ab"),
    ("The quick brown fox jumps.", "the QUICK brown dog jumped!"),
    ("one\ntwo three", "one two\tthree four"),
]


def main() -> None:
    rng = random.Random(0)
    words = SENTENCE.split()
    drawn = [tuple(" ".join(rng.choices(words, k=rng.randint(1, 18))) for _ in range(2)) for _ in range(60)]
    rouge = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    chrf = CHRF()
    rows = []
    for answer, right in FIXED + drawn:
        found = rouge.score(right, answer)
        row = {name: found[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")}
        row |= {"answer": answer, "right": right, "chrf": chrf.sentence_score(answer, [right]).score / 100}
        rows.append(row)
    text = json.dumps(rows, ensure_ascii=False, indent=0, sort_keys=True)
    Path(__file__).with_name("overlap_scores.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
