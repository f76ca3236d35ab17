"""How many texts a recipe learns from where the budget has no time for all of them."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from jettison.compress.recipe_types import Recipe

FEWEST_TEXTS = 20_000
"""A draw is never smaller: a recipe that has no time for it is left out."""
LEARNING_SHARE = 0.25
"""Of the time for making candidates, what one recipe may take before it learns from fewer texts."""
LEARNING_STEPS = ("distill", "distill_linear", "distill_static")


def counts_below(n_texts: int) -> tuple[int, ...]:
    """Sizes of draws of so many texts, largest first: 20,000, 30,000, 40,000, 60,000, 80,000 and so on.

    They are few and far apart, so that a run that is repeated draws the same although its clock differs.
    """
    found: list[int] = []
    step = FEWEST_TEXTS
    while step < n_texts:
        found += [count for count in (step, step + step // 2) if count < n_texts]
        step *= 2
    return tuple(reversed(found))


def texts_to_learn(price_s: Callable[[int], float], n_texts: int, time_s: float | None) -> int:
    """How many of the texts a recipe learns from in the time, by its own estimate.

    Args:
        price_s: Seconds that it takes with so many texts.
        n_texts: All there are.
        time_s: What it may take; None is as long as it needs.

    Returns:
        `n_texts` where they fit, or else the largest of `counts_below` that does; the smallest of them
        where none does.
    """
    if time_s is None:
        return n_texts
    counts = (n_texts, *counts_below(n_texts))
    return next((count for count in counts if price_s(count) <= time_s), counts[-1])


def draw_where_short(
    recipes_of: Mapping[int, Sequence[Recipe]], making_s: float, price_s: Callable[[Recipe], float]
) -> list[Recipe]:
    """The recipes from all texts, but those that would take too much of the time from a draw.

    Args:
        recipes_of: The same recipes for each number of texts to learn from, the largest number all of them.
        making_s: Time for all recipes together.
        price_s: Seconds that one is charged.
    """
    n_texts = max(recipes_of)
    options = {
        count: {recipe.name: drawing(recipe, count, n_texts) for recipe in recipes}
        for count, recipes in recipes_of.items()
    }
    learning = [name for name, recipe in options[n_texts].items() if _learns(recipe)]
    time_s = LEARNING_SHARE * making_s
    counts: dict[str, int] = {}
    for name in learning:
        prices = {n: price_s(of_so_many[name]) for n, of_so_many in options.items()}
        counts[name] = texts_to_learn(prices.__getitem__, n_texts, time_s)
    # Who shares the teacher's answers learns from as many texts as the other, or half of them are for one.
    sharing = [name for name in learning if options[n_texts][name].shared_s > 0]
    together = min((counts[name] for name in sharing), default=n_texts)
    counts |= dict.fromkeys(sharing, together)
    return [
        recipe if name not in counts else _with_fewer(name, counts[name], options)
        for name, recipe in options[n_texts].items()
    ]


def drawing(recipe: Recipe, most_texts: int, of_texts: int) -> Recipe:
    """The recipe with its learning steps limited to a draw, where that is fewer than there are."""
    if most_texts >= of_texts or not _learns(recipe):
        return recipe
    steps = tuple(
        {**step, "most_texts": most_texts} if step["step"] in LEARNING_STEPS else step
        for step in recipe.steps
    )
    return msgspec.structs.replace(recipe, steps=steps, most_texts=most_texts, of_texts=of_texts)


def draw_words(recipe: Recipe) -> str:
    """What a report says of a draw; nothing where a recipe learns from all texts, or from none."""
    if recipe.most_texts is None or recipe.of_texts is None:
        return ""
    return f"learned from {recipe.most_texts:,} of {recipe.of_texts:,} texts, since the budget is short"


def _learns(recipe: Recipe) -> bool:
    return any(step["step"] in LEARNING_STEPS for step in recipe.steps)


def _with_fewer(name: str, count: int, options: Mapping[int, Mapping[str, Recipe]]) -> Recipe:
    fewer = tuple(options[n][name] for n in sorted(options, reverse=True) if n < count)
    return msgspec.structs.replace(options[count][name], fewer=fewer)
