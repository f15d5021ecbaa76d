"""Judge a data set from Python: the same verbs as on the command line."""

from pathlib import Path

from tuneahead import Goal, assess, read_recipe, write_html

here = Path(__file__).parent
recipe = read_recipe(here / "recipe.yaml")
found = assess(here / "broken.jsonl", recipe, goal=Goal(gain_pp=3))
print(found.verdict.decision, found.verdict.reason)
for fix in found.fixes[:3]:
    print("-", fix.title)
write_html(found, Path("broken.html"))
