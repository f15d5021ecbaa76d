"""Write docs/recipe.md from the recipe's own fields: python scripts/write_recipe_page.py."""

from __future__ import annotations

from pathlib import Path

from tuneahead.recipe import USER_FIELDS, Recipe
from tuneahead.recipefields import allowed

PAGE = Path(__file__).parents[1] / "docs" / "recipe.md"
HEAD = """# Recipe

A recipe is everything the Trainer is told. Give it as a YAML file (`--recipe recipe.yaml`), field by field
(`--set learning_rate=1e-3`), or in Python (`Recipe(learning_rate=1e-3)`):

```yaml
learning_rate: 2e-4
schedule: cosine
batch_size: 8
epochs: 3
lora_rank: 16
lora_alpha: 32
target_modules: q_proj, v_proj
max_length: 1024
```

What is not given has the default of the table. Many names are those of transformers and PEFT; where one
differs (`num_train_epochs`, `per_device_train_batch_size`, `lr_scheduler_type`, `r`), the error says what it
is called here. Each field stands once. `yes`, which YAML takes for true, and `10:30` and `010`, which it
takes for 630 and 8, are refused.
As in the Trainer, `max_steps` wins over `epochs`: `--set epochs=1` with a file that sets `max_steps` is
refused, with `--set max_steps=none` beside it the run goes by epochs.

The probe is the same recipe with an early end: `recipe.probe(100)` changes nothing else, the learning-rate
schedule least of all. TuneAhead's own runs hold out a tenth of the rows (at most 64, none below 10 rows) to
watch generalisation, so that a run of `epochs` has fewer steps than one on all rows: of 60 rows 54 are
trained, and three epochs at batch size 8 are 21 steps instead of 24. Give `max_steps` where the number must
be the same elsewhere. Inside your own Trainer ([gate](trainer.md)) no row is held out.

| field | default | allowed | what it is |
|---|---|---|---|
"""


TAIL = """
## Axolotl, LLaMA-Factory

Their files are no recipes: copy the settings below under the names of this page. What is left (model, data,
folders, evaluation) is given elsewhere or has no meaning here. A file with other names is refused with all of
them in one message. Named alike: `learning_rate`, `max_steps`, `warmup_ratio`, `gradient_accumulation_steps`,
`lora_alpha`, `lora_dropout`, `weight_decay` and `seed`. Theirs and the Trainer's `constant` never warms up:
write `schedule: constant` and `warmup_ratio: 0`. Their `constant_with_warmup` is `schedule: constant`.

| here | Axolotl | LLaMA-Factory |
|---|---|---|
| `batch_size` | `micro_batch_size` | `per_device_train_batch_size` |
| `epochs` | `num_epochs` | `num_train_epochs` |
| `schedule` | `lr_scheduler` | `lr_scheduler_type` |
| `lora_rank` | `lora_r` | `lora_rank` |
| `target_modules` | `lora_target_modules` | `lora_target` |
| `target_modules: all-linear` | `lora_target_linear: true` | `lora_target: all` |
| `max_length` | `sequence_len` | `cutoff_len` |
| `precision` | `bf16`, `fp16`, `load_in_8bit`, `load_in_4bit` | `bf16`, `fp16`, `quantization_bit` |

What their files leave out has their default and not that of this page: write it down. Those of the Trainer,
TRL and LLaMA-Factory are no warm-up (`warmup_ratio: 0`), `seed: 42` and a `learning_rate` of 5e-5 (TRL's
`SFTConfig`: 2e-5); LLaMA-Factory's are `cutoff_len: 2048` and a `lora_alpha` of twice the rank, those of
TRL's command line `lora_r: 16`, `lora_alpha: 32` and `lora_dropout: 0.05`. With `use_rslora` the
`lora_alpha` of the same run is here theirs times the square root of the rank.

Of a DeepSpeed file `train_micro_batch_size_per_gpu` is the `batch_size` of one device, `gradient_clipping` is
`max_grad_norm`, and the `params` of its optimiser hold fields; its `train_batch_size` counts accumulation and
all devices. Rows are not packed here: of a packed run give the `batch_size` and `max_steps` that single rows
would have.

To watch such a run itself, attach a [gate](trainer.md#axolotl-llama-factory).
"""


def render() -> str:
    """The page as Markdown."""
    rows = []
    for name in USER_FIELDS:
        field = Recipe.model_fields[name]
        default = field.default
        shown = (
            ", ".join(default) if isinstance(default, tuple) else "none" if default is None else f"{default}"
        )
        rows.append(f"| `{name}` | {shown} | {allowed(field)} | {field.description} |")
    return HEAD + "\n".join(rows) + "\n" + TAIL


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
