"""Write docs/recipe.md from the recipe's own fields: python scripts/write_recipe_page.py."""

from __future__ import annotations

from pathlib import Path

from tuneahead.recipe import Recipe

PAGE = Path(__file__).parents[1] / "docs" / "recipe.md"
HEAD = """# Recipe

A recipe is everything the Trainer is told. Give it as a YAML file (`--recipe recipe.yaml`), field by field
(`--set learning_rate=1e-3`), or in Python (`Recipe(learning_rate=1e-3)`). Names and defaults are those of
transformers and PEFT. The probe is the same recipe with an early end: `recipe.probe(100)` changes nothing
else, the learning-rate schedule least of all.

| field | default | what it is |
|---|---|---|
"""


def render() -> str:
    """The page as Markdown."""
    rows = []
    for name, field in Recipe.model_fields.items():
        default = field.default
        shown = (
            ", ".join(default) if isinstance(default, tuple) else "none" if default is None else f"{default}"
        )
        rows.append(f"| `{name}` | {shown} | {field.description} |")
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
