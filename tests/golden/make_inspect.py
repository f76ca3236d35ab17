"""Makes `tests/golden/inspect` with Inspect itself: two models on one task, two epochs, some calls failing.

Run it where inspect_ai 0.3.285 is installed: `python tests/golden/make_inspect.py`. No network, no weights.
"""

import random
import shutil
import tempfile
from pathlib import Path

from inspect_ai import Epochs, Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    get_model,
    modelapi,
)
from inspect_ai.scorer import Score, accuracy, includes, scorer
from inspect_ai.solver import generate, system_message

FOLDER = Path(__file__).parent / "inspect"


@modelapi(name="guesser")
class Guesser(ModelAPI):
    """A model that draws its answers, and now and then fails."""

    def __init__(self, model_name, base_url=None, api_key=None, config=None, seed=0):
        super().__init__(model_name=model_name)
        self._seed = seed

    async def count_tokens(self, input, config=None):  # the built-in one fetches a vocabulary
        return 8

    async def count_text_tokens(self, text):
        return 8

    async def generate(self, input, tools, tool_choice, config):
        asked = input[-1].text
        rng = random.Random(f"{self._seed} {asked} {rng_of_call(asked, self._seed)}")
        if rng.random() < 0.05:
            raise ValueError("the server is gone")
        n = int(asked.split()[2])
        said = f"It is {rng.choice([n + n % 5, n + n % 5, n + 7])}."
        message = ChatMessageAssistant(content=said, model=self.model_name, source="generate")
        usage = ModelUsage(input_tokens=12, output_tokens=4, total_tokens=16)
        choices = [ChatCompletionChoice(message=message)]
        return ModelOutput(model=self.model_name, choices=choices, usage=usage)


CALLS: dict[tuple[str, int], int] = {}


def rng_of_call(asked: str, seed: int) -> int:
    """Which call of this question it is: epochs differ."""
    CALLS[asked, seed] = CALLS.get((asked, seed), 0) + 1
    return CALLS[asked, seed]


@scorer(metrics={"*": [accuracy()]})
def parts():
    """A score of two parts, one of which cannot be told for even sums."""

    async def score(state, target):
        said = state.output.completion
        odd = int(target.text) % 2 == 1
        told = float(target.text in said) if odd else float("nan")
        return Score(value={"short": len(said) < 12, "odd": told})

    return score


def samples():
    """Twelve sums with ids and metadata."""
    return [
        Sample(
            id=f"q{i}",
            input=f"What is {i} plus {i % 5}?",
            target=str(i + i % 5),
            metadata={"size": "small" if i < 6 else "large"},
        )
        for i in range(12)
    ]


def run(name: str, seed: int, system: str, folder: Path, log_format: str = "eval") -> Path:
    """One evaluation; where its log lies."""
    task = Task(
        name="sums",
        dataset=MemoryDataset(samples(), name="sums"),
        solver=[system_message(system), generate()],
        scorer=[includes(), parts()],
        epochs=Epochs(2, "mean"),
        fail_on_error=False,
    )
    model = get_model(f"guesser/{name}", seed=seed, memoize=False)
    (log,) = eval(task, model=model, log_dir=str(folder), log_format=log_format, display="none")
    return Path(log.location.removeprefix("file://"))


def main() -> None:
    """Run Inspect and keep its logs."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    plain, reworded = "You add numbers.", "You are a calculator."
    for name, seed, system, log_format in (
        ("large", 1, plain, "eval"),
        ("lean", 2, plain, "eval"),
        ("reworded", 2, reworded, "eval"),
        ("lean", 2, plain, "json"),
    ):
        CALLS.clear()
        with tempfile.TemporaryDirectory() as folder:
            found = run(name, seed, system, Path(folder), log_format)
            shutil.copy(found, FOLDER / f"{name}{found.suffix}")


if __name__ == "__main__":
    main()
