"""Recipes: schedules as transformers has them, clear errors, probes that change nothing else."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tuneahead.errors import RecipeError
from tuneahead.recipe import Recipe, make_recipe, read_recipe

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_learning_rates_equal_those_of_transformers(schedule: str, warmup: float) -> None:
    import torch
    from transformers import get_scheduler

    recipe = Recipe(schedule=schedule, warmup_ratio=warmup, learning_rate=2e-3, max_steps=47)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    theirs = get_scheduler(name, optimizer, recipe.warmup_steps(47), 47)
    for step in range(47):
        assert recipe.learning_rate_at(step, 47) == pytest.approx(
            theirs.get_last_lr()[0], rel=1e-9, abs=1e-15
        )
        optimizer.step()
        theirs.step()


def test_steps_are_counted_as_the_trainer_counts_them() -> None:
    recipe = Recipe(batch_size=4, gradient_accumulation_steps=2, epochs=3)
    # 21 rows: 6 batches, 3 updates an epoch.
    assert recipe.steps_per_epoch(21) == 3 and recipe.total_steps(21) == 9
    assert Recipe(max_steps=50, epochs=9).total_steps(21) == 50
    assert recipe.rows_per_step == 8


def test_a_probe_differs_in_its_end_alone() -> None:
    recipe = Recipe(max_steps=1000, seed=3)
    probe = recipe.probe(100)
    assert probe.stop_after == 100 and probe.full() == recipe
    assert probe.fingerprint == recipe.fingerprint
    assert probe.learning_rate_at(99, probe.total_steps(10)) == recipe.learning_rate_at(99, 1000)
    assert recipe.replace(seed=4).fingerprint != recipe.fingerprint
    with pytest.raises(RecipeError, match="at least one step, got 0"):
        recipe.probe(0)


def test_a_file_is_read_with_numbers_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "learning_rate: 2e-4\nmax_steps: 300\ntarget_modules: q_proj,v_proj\nmax_grad_norm: null\n"
    )
    recipe = read_recipe(path)
    assert recipe.learning_rate == 2e-4 and recipe.target_modules == ("q_proj", "v_proj")
    assert recipe.max_grad_norm is None
    path.write_text("")
    assert read_recipe(path) == Recipe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lerning_rate: 1e-3", "unknown recipe field 'lerning_rate'"),
        ("learning_rate: -1", "'learning_rate' is -1"),
        ("lora_rank: many", "'lora_rank' is 'many'"),
        ("seed: 1764108626123456789", "'seed' is 1764108626123456789"),
        ("max_steps: 1764108626", "'max_steps' is 1764108626"),
        ("lora_rank: 1000000", "'lora_rank' is 1000000"),
        ("batch_size: 1000000", "'batch_size' is 1000000"),
        ("gradient_accumulation_steps: 1000000", "'gradient_accumulation_steps' is 1000000"),
        ("epochs: 1e300", "'epochs' is 1e[+]300"),
        ("- 1\n- 2", "holds a list, not a mapping"),
        ("a: [1", "not valid YAML"),
        ("seed: " + "9" * 5000, "not valid YAML"),
        ("seed: 2026-13-45", "not valid YAML: month must be"),
        ("seed: " + "[" * 5000, "not valid YAML: nested too deeply"),
        ("seed: !!bool maybe", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_a_wrong_file_names_field_and_value(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_recipe(path)


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(RecipeError, match="can't read recipe nowhere.yaml"):
        read_recipe("nowhere.yaml")
    with pytest.raises(RecipeError):
        make_recipe({"batch_size": 0})


def test_the_page_of_the_docs_is_the_one_the_fields_give() -> None:
    render = runpy.run_path(str(ROOT / "scripts" / "write_recipe_page.py"))["render"]
    assert (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8") == render()
    assert all(field.description for field in Recipe.model_fields.values())
