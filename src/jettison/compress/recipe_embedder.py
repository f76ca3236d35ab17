"""Recipes that make a leaner embedder of an embedder."""

from jettison.candidate import Candidate
from jettison.compress.recipe_types import Recipe, Surroundings


def embedder_recipes(incumbent: Candidate, around: Surroundings) -> list[Recipe]:
    """The same weights in another runtime, then in int8, then a table with no network; none for a table."""
    if not (incumbent.path / "config.json").is_file() or "torch" not in around.installed:
        return []
    found = []
    if "onnx" in around.installed:
        found = [
            Recipe(
                name="onnx-float32",
                steps=({"step": "quantize_embedder", "precision": "float32"},),
                family="free",
                estimate_s=20,
                why="the same weights in another runtime: the free gain that everything else has to beat",
            ),
            Recipe(
                name="onnx-int8",
                steps=({"step": "quantize_embedder", "precision": "int8"},),
                family="quantized",
                estimate_s=25,
                why="dynamic int8: weights in 8 bits, activations quantized on the fly",
            ),
        ]
    static = Recipe(
        name="static",
        steps=({"step": "distill_embedder"},),
        family="student",
        estimate_s=60,
        why="a vector for each token, distilled from the encoder: no network at all",
    )
    return [*found, static]
