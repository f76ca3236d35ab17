"""Recipes that make a leaner language model of a language model."""

from typing import Any

from jettison.candidate import Candidate
from jettison.compress.recipe_types import Recipe, Surroundings

GGUF_TYPES = ("Q8_0", "Q5_K_M", "Q4_K_M", "Q3_K_M")


def language_recipes(incumbent: Candidate, around: Surroundings) -> list[Recipe]:
    """Free settings of the prompt first, then fewer bits, then fewer layers healed, then both."""
    recipes = [_slimmer_prompt()]
    if incumbent.backend == "hf_causal":
        recipes += [*_gguf(around), *_genai(around), *_trained(incumbent, around)]
    if incumbent.backend == "llamacpp" and "gguf" in around.installed:
        recipes += [_gguf_recipe(kind, (), "from the incumbent's own GGUF") for kind in GGUF_TYPES[1:]]
    return recipes


def _slimmer_prompt() -> Recipe:
    return Recipe(
        name="prompt-slim",
        steps=({"step": "prompt"},),
        family="free",
        estimate_s=60,
        why="the same model asked with fewer examples and a shorter instruction, chosen on dev",
    )


def _gguf(around: Surroundings) -> list[Recipe]:
    if "gguf" not in around.installed:
        return []
    start = ({"step": "to_gguf"},)
    return [_gguf_recipe(kind, start, "llama.cpp's runtime and k-quants") for kind in GGUF_TYPES]


def _gguf_recipe(kind: str, start: tuple[dict[str, Any], ...], why: str) -> Recipe:
    return Recipe(
        name=f"gguf-{kind.lower()}",
        steps=(*start, {"step": "quantize_gguf", "type": kind}),
        family="quantized",
        estimate_s=60,
        why=why,
    )


def _genai(around: Surroundings) -> list[Recipe]:
    if "genai" not in around.installed:
        return []
    return [
        Recipe(
            name=f"genai-{bits}",
            steps=({"step": "quantize_genai", "precision": bits},),
            family="quantized",
            estimate_s=90,
            why=f"{bits} weights in a runtime made for generation",
        )
        for bits in ("int8", "int4")
    ]


def _trained(incumbent: Candidate, around: Surroundings) -> list[Recipe]:
    if "torch" not in around.installed:
        return []
    found = []
    if around.n_train:
        found.append(
            Recipe(
                name="lora",
                steps=({"step": "finetune_language", "mode": "lora"},),
                family="trained",
                estimate_s=120 + 6 * around.n_train * around.example_s,
                why="the same size, taught the task itself",
            )
        )
    depth = around.n_layers or int(incumbent.settings.get("n_layers") or 0)
    for share in (0.75, 0.5):
        keep = round(depth * share)
        if keep < 1 or keep >= depth:
            continue
        found.append(
            Recipe(
                name=f"pruned-{keep}",
                steps=({"step": "prune_language", "depth": keep}, {"step": "distill_language"}),
                family="pruned",
                estimate_s=180 + 8 * around.n_train * around.example_s,
                why=f"{keep} of {depth} layers, healed by the incumbent's own answers",
            )
        )
    return found
