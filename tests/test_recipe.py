"""Recipes: schedules as transformers has them, clear errors, probes that change nothing else."""

from __future__ import annotations

import ast
import inspect
import runpy
from pathlib import Path

import pytest

from tuneahead import recipenames
from tuneahead.errors import RecipeError
from tuneahead.recipe import USER_FIELDS, Recipe, make_recipe, read_recipe

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


@pytest.mark.parametrize(("rows", "batch", "accumulated"), [(60, 8, 1), (21, 4, 2), (3, 8, 1), (64, 8, 4)])
def test_the_rows_of_some_steps_are_those_that_the_loop_takes(
    rows: int, batch: int, accumulated: int
) -> None:
    from tuneahead.training.batches import step_rows

    recipe, taken = Recipe(batch_size=batch, gradient_accumulation_steps=accumulated), 0
    for step in range(20):
        assert recipe.rows_seen(rows, step) == taken
        taken += sum(map(len, step_rows(recipe, rows, step)))


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
        ("target_modules: []", "'target_modules' is \\[\\]: no name of a layer"),
        ("target_modules: ' , '", "'target_modules' is ' , ': no name"),
        ("learning_rate: true", "'learning_rate' is True: a truth value"),
        ("batch_size: yes", "'batch_size' is True: a truth value"),
        ("max_steps: 10:30", "max_steps is 10:30, which is no decimal number"),
        ("seed: 1\nbatch_size: 010", r"batch_size is 010 \(line 2\), which is no decimal number"),
        ("seed: 1\nseed: 2", r"the key 'seed' stands twice \(line 2\)"),
        ("a: &a [*a]\nseed: 0x10", "seed is 0x10"),
        ("batch_size: none", "'batch_size' is 'none'"),
        ("stop_after: 50", "stop_after is no field to set"),
        ("num_train_epochs: 3", "num_train_epochs is called epochs here"),
        ("per_device_train_batch_size: 4", "per_device_train_batch_size is called batch_size here"),
        ("lr_scheduler_type: linear", "lr_scheduler_type is called schedule here"),
        ("r: 8", "r is called lora_rank here"),
        ("max_seq_length: 99", "max_seq_length is called max_length here"),
        ("warmup_steps: 9", "unknown recipe field 'warmup_steps'"),
    ],
)
def test_a_wrong_file_names_field_and_value(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(path)
    assert str(path) in caught.value.message and caught.value.remedy


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"learning_rate:\t1e-4\n", "write spaces in place of tabs"),
        ("learning_rate: 1e-4\n".encode("utf-16"), "save it as UTF-8"),
    ],
)
def test_a_file_that_an_editor_spoiled_is_told_how_to_mend_it(
    tmp_path: Path, content: bytes, remedy: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match="recipe.yaml") as caught:
        read_recipe(path)
    assert caught.value.remedy == remedy


def test_a_remedy_is_a_next_step() -> None:
    def remedy(**fields: object) -> str:
        with pytest.raises(RecipeError) as caught:
            make_recipe(fields)
        return caught.value.remedy

    assert remedy(learning_rate=-1) == "give a number above 0, such as 2e-4"
    assert remedy(max_steps=0) == "give a whole number from 1 to 10,000,000, or none, such as 600"
    assert remedy(schedule="cosin") == "give linear, cosine or constant"
    assert remedy(target_modules="") == (
        "give all-linear, or names of layers with commas between them, such as q_proj, v_proj"
    )
    assert remedy(lerning_rate=1) == "did you mean learning_rate?"
    assert remedy(zzz=1).startswith("known fields: learning_rate, ")
    assert "stop_after" not in remedy(zzz=1)
    assert "warmup_ratio" in remedy(warmup_steps=1) and "precision: bf16" in remedy(bf16=True)


def test_a_file_of_another_trainer_is_told_all_that_differs_at_once(tmp_path: Path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text(
        "base_model: org/model\nadapter: lora\nlora_r: 16\nlora_alpha: 32\nlora_target_linear: true\n"
        "sequence_len: 2048\nmicro_batch_size: 2\nnum_epochs: 1\nlr_scheduler: cosine\nbf16: auto\n"
        "learning_rate: -1\n"
    )
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    message, *lines = caught.value.message.split("\n")
    assert message == f"{path}: 10 recipe fields can't be used"
    said = [line.strip() for line in lines]
    assert "lora_r is called lora_rank here: write lora_rank in its place" in said
    assert "unknown recipe field 'bf16': write precision: bf16, where it is not 8bit or 4bit" in said
    assert said[-1] == "unknown recipe field 'base_model'"
    assert "unknown recipe field 'adapter': leave it out: runs are LoRA fine-tunes" in said
    assert any(line.startswith("recipe field 'learning_rate' is -1") for line in said)


def test_a_constant_rate_of_another_trainer_is_told_with_its_warm_up() -> None:
    def remedy(**fields: object) -> str:
        with pytest.raises(RecipeError) as caught:
            make_recipe(fields)
        return caught.value.remedy

    never = "write schedule: constant and warmup_ratio: 0 in its place"
    assert remedy(lr_scheduler_type="constant") == remedy(lr_scheduler="constant") == never
    assert remedy(lr_scheduler_type="constant_with_warmup") == "write schedule: constant in its place"
    assert remedy(schedule="constant_with_warmup") == "write schedule: constant"


def test_what_another_trainer_switched_off_is_not_advised(tmp_path: Path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text("load_in_8bit: false\nload_in_4bit: true\nbf16: auto\nfp16:\nlora_target_linear: false\n")
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    assert [line.split("field ")[-1] for line in caught.value.message.split("\n")[1:]] == [
        "'load_in_8bit': leave it out",
        "'load_in_4bit': write precision: 4bit",
        "'bf16': write precision: bf16, where it is not 8bit or 4bit",
        "'fp16': leave it out",
        "'lora_target_linear': leave it out",
    ]


def test_values_of_another_trainer_are_told_in_the_words_of_a_recipe() -> None:
    for fields, said in (
        ({"lora_target": "all"}, "write target_modules: all-linear in its place"),
        ({"torch_dtype": "bfloat16"}, "write precision: bf16 in its place"),
        ({"precision": "float16"}, "write precision: fp16"),
    ):
        with pytest.raises(RecipeError) as caught:
            make_recipe(fields)
        assert caught.value.remedy == said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"save_steps": 500}, "leave it out: it does not change what is trained"),
        ({"max_samples": 1000}, "leave it out, and give a file of so many rows"),
        ({"shuffle": True}, "leave it out: rows are shuffled"),
        ({"warmup_steps": 0.03}, "write warmup_ratio: 0.03"),
        ({"warmup_steps": 0}, "write warmup_ratio: 0"),
        ({"warmup_steps": 10}, "give warmup_ratio, the share of the steps spent warming up"),
        ({"optimizer": "adamw_bnb_8bit"}, "leave it out: the optimiser is AdamW"),
        ({"optim": "adafactor"}, "leave it out: runs are trained by AdamW here, and not by adafactor"),
        ({"use_rslora": True}, "leave it out, and multiply lora_alpha by the square root of lora_rank"),
        ({"use_rslora": False}, "leave it out"),
        ({"max_steps": -1}, "write max_steps: none"),
        ({"max_grad_norm": 0.0}, "write max_grad_norm: none"),
        (
            {"optimizer": {"_component_": "torch.optim.AdamW", "lr": "3e-4", "weight_decay": 0.01}},
            "write learning_rate, weight_decay out of it, each on a line of its own",
        ),
        (
            {"optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "betas": [0.9, 0.95], "eps": 1e-8}}},
            "write learning_rate, adam_beta1, adam_beta2, adam_epsilon out of it, each on a line of its own",
        ),
        ({"train_micro_batch_size_per_gpu": 4}, "write batch_size in its place"),
        (
            {"train_batch_size": 64},
            "write the rows of one forward pass as batch_size: DeepSpeed's train_batch_size counts "
            "accumulation and all devices",
        ),
        (
            {"scheduler": {"type": "WarmupDecayLR", "params": {"warmup_num_steps": 100}}},
            "write schedule: linear, cosine or constant, and warmup_ratio, the share of the steps spent "
            "warming up",
        ),
        ({"bf16": {"enabled": True}}, "write precision: bf16, where it is not 8bit or 4bit"),
        ({"fp16": {"enabled": "auto", "loss_scale": 0}}, "leave it out"),
        (
            {"sample_packing": True},
            "leave it out: rows are not packed here, and batch_size and max_steps mean single rows",
        ),
        ({"packing": False}, "leave it out"),
        ({"use_dora": True}, "leave it out: adapters are plain LoRA, and not DoRA"),
        ({"modules_to_save": ["lm_head"]}, "leave it out: adapters alone are trained, and no whole layers"),
        ({"modules_to_save": None}, "leave it out"),
        ({"loraplus_lr_ratio": 16}, "leave it out: both matrices of an adapter have one learning rate"),
        ({"label_smoothing_factor": 0.1}, "leave it out: labels are not smoothed"),
        ({"gradient_checkpointing": True}, "leave it out: it does not change what is trained"),
        (
            {"lora": {"r": 16, "alpha": 32, "lora_dropout": 0}},
            "write lora_rank, lora_alpha, lora_dropout out of it, each on a line of its own",
        ),
    ],
)
def test_settings_of_another_trainer_lead_to_the_same_run(fields: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make_recipe(fields)
    assert caught.value.remedy == said


def test_every_name_of_another_trainer_leads_to_a_field() -> None:
    tables = (recipenames.LOGGED_NAMES, recipenames._MORE_NAMES)
    assert {field for table in tables for field in table} <= set(USER_FIELDS)
    others = [name for table in tables for names in table.values() for name in names]
    assert len(set(others)) == len(others) and not {*others, *recipenames._INSTEAD} & set(USER_FIELDS)


def test_names_of_layers_may_stand_apart_and_none_is_a_value(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "target_modules: q_proj, v_proj,\nmax_steps: none\nmax_grad_norm: 'null'\nbatch_size: 1e1\n"
    )
    recipe = read_recipe(path)
    assert recipe.target_modules == ("q_proj", "v_proj") and recipe.batch_size == 10
    assert recipe.max_steps is None and recipe.max_grad_norm is None
    assert make_recipe({"target_modules": "q_proj v_proj"}) == make_recipe(
        {"target_modules": "q_proj, v_proj"}
    )
    assert Recipe(target_modules=[" q_proj ", ""]).target_modules == ("q_proj",)  # type: ignore[arg-type]


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(RecipeError, match="can't read recipe nowhere.yaml"):
        read_recipe("nowhere.yaml")
    with pytest.raises(RecipeError):
        make_recipe({"batch_size": 0})


def test_the_page_of_the_docs_is_the_one_the_fields_give() -> None:
    render = runpy.run_path(str(ROOT / "scripts" / "write_recipe_page.py"))["render"]
    assert (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8") == render()
    assert all(field.description for field in Recipe.model_fields.values())


def test_type_checkers_see_that_every_field_of_a_recipe_has_a_default() -> None:
    # Without pydantic's plugin they know a default by its name alone, and would ask for all fields.
    fields = [
        call
        for call in ast.walk(ast.parse(inspect.getsource(Recipe)))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Field"
    ]
    assert len(fields) == len(Recipe.model_fields)
    assert all(not call.args and "default" in {word.arg for word in call.keywords} for call in fields)
