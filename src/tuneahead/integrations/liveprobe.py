"""What the recording process measures while a Trainer trains: gradients, updates, cues, flatness."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import torch

from tuneahead.checks.check import RunLength
from tuneahead.features.recipes import UNKNOWN_SETTING
from tuneahead.integrations.arguments import adapter_groups, trainer_recipe
from tuneahead.integrations.decoding import decode_rows
from tuneahead.integrations.live import LiveAdapter, frozen_layers, same_draws, undisturbed
from tuneahead.integrations.losses import Visit
from tuneahead.integrations.rows import (
    TrainerRows,
    is_indexed,
    known_length,
    read_rows,
)
from tuneahead.recipe import Recipe
from tuneahead.trace import SKIPPED, Cue, Flatness, ProbeTrace, TraceInfo
from tuneahead.training.encode import MAX_HELDOUT_ROWS, Encoded, RunData, data_fingerprint
from tuneahead.training.measure import (
    CueMeter,
    GradientMeter,
    ProbeSettings,
    StepRows,
    flatness_rows,
    measure_flatness,
    peak_memory_mb,
)

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import Trainer

    from tuneahead.examples import Example
    from tuneahead.training.models import Base

_NAN = float("nan")
_PACKING = ("packing", "sample_packing")
"""Arguments of TRL and Axolotl that put several rows into a line."""
_PICTURED = "rows hold images, and only their text can be asked of the model"


class LiveProbe:
    """The probe of one Trainer's run, with the meters of our own loop on the live adapter."""

    def __init__(
        self,
        trainer: Trainer,
        model: PeftModel,
        base: Base,
        settings: ProbeSettings,
        *,
        examples: Sequence[Example] | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        self.trainer = trainer
        self.base = base
        self.settings = settings
        self.adapter = LiveAdapter(base, model)
        read, notes = trainer_recipe(trainer, model, self.adapter)
        self.recipe = recipe or read
        # A recipe that was given says what it has a field for.
        given = {UNKNOWN_SETTING + name for name in Recipe.model_fields} if recipe else ()
        self.absent = [note for note in notes if note[0] not in given]
        if self.adapter.others:
            note = f"{len(self.adapter.others)} trained tensors are no LoRA matrices and are not measured"
            self.absent.append(("other weights", note))
        self.meter = GradientMeter(self.adapter)
        self.meter.start(0, self.recipe)
        loader = trainer.callback_handler.train_dataloader
        assert loader is not None and trainer.optimizer is not None, "training has begun"
        self.dataset_rows, self.optimizer = known_length(loader.dataset), trainer.optimizer
        # Data sets and collators may draw: what to mask, how to augment.
        with same_draws():
            packing = any(getattr(trainer.args, name, False) for name in _PACKING)
            self.rows: TrainerRows = read_rows(loader.dataset, loader.collate_fn, packed=packing)
            heldout, pictured = _heldout_rows(trainer)
        self.packed = len(self.rows.keys) > self.rows.items or (packing and not self.rows.keys)
        """Whether batches have lines of several rows."""
        self.pictured = _PICTURED if self.rows.pictured or pictured else ""
        """Why the loss on rows is not measured outside of training, or empty."""
        self.given = bool(examples)
        decoded = () if examples else decode_rows(self.rows.rows, base.tokenizer)
        self.examples = tuple(examples or (one.example for one in decoded))
        self.asked = {one.encoded.row: one.encoded for one in decoded} or None
        """Rows by their numbers, with the tokens of the answer marked; None where examples were given."""
        if self.packed:
            why = "lines hold several rows, a recipe's batches single ones"
            self.absent.append((UNKNOWN_SETTING + "packing", why))
        if _prompts_trained(self.examples, self.rows.rows):
            why = "prompts are trained too, a recipe trains answers alone"
            self.absent.append((UNKNOWN_SETTING + "completion_only_loss", why))
        self.data = RunData(self.rows.rows, heldout, data_fingerprint(self.examples))
        with self.watching():
            self.cue_meter = CueMeter(base, settings)
        self.cues: list[Cue] = []
        self.flatness: Flatness | None = None
        self.steps = StepRows()
        self.skipped = 0
        self.adapted = (*dict.fromkeys(name for name, _, _ in self.adapter.pairs), *frozen_layers(base))
        """Names of the layers that the trained adapters are on."""
        self.idle = set(self.adapted)
        """Those that have had no gradient yet."""
        self._no_visits = ""
        self._gradients = 0
        self._gradient: tuple[float, ...] = (_NAN,) * 5
        self._layers = np.full(len(self.meter.slices), np.nan, np.float32)
        self._moved = (_NAN, _NAN)
        self._rate = _NAN

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The run stands still inside the block; passes use its own number format."""
        with undisturbed(self.base.model), self.trainer.accelerator.autocast():
            yield

    def before_update(self, clip_factor: float, scaled: bool) -> None:
        """Measure the gradient, which was clipped by ``clip_factor``; ``scaled`` is fp16 with a scaler."""
        # Other weights may have a rate of their own, and come first.
        groups = adapter_groups(self.optimizer, self.adapter) or self.optimizer.param_groups
        self._rate = float(groups[0]["lr"])
        self.adapter.pull_gradients(1.0 / clip_factor if clip_factor > 0 else _NAN)
        self.idle -= set(self.adapter.with_gradient(self.idle))
        norm = torch.linalg.vector_norm(self.adapter.grads, dim=1)
        if scaled and not bool(torch.isfinite(norm).all()):
            # The scaler skips this step: there is no gradient to remember.
            self.skipped += 1
            self._gradient = (_NAN,) * 5
            self._layers = np.full(len(self.meter.slices), np.nan, np.float32)
            self.meter.before[0] = self.adapter.values[0]
            return
        stats, layers = self.meter.gradients([0], norm)
        dots = stats[0, :3].tolist() if self._gradients else [_NAN] * 3
        self._gradients += 1
        self._gradient = (float(norm[0]), *dots, float(stats[0, 3]))
        self._layers = layers[0].cpu().numpy().astype(np.float32)

    def after_update(self) -> None:
        """Measure the update and the distance from the start."""
        self.adapter.pull()
        update, distance = self.meter.updates([0])[0].tolist()
        self._moved = (update, distance)

    def record(self, loss_sum_nats: float, tokens: float, seconds: float) -> None:
        """Write down one optimiser step; the sums are over all processes."""
        norm, *rest = self._gradient
        memory = peak_memory_mb(self.base.device)
        row = (loss_sum_nats, tokens, self._rate, norm, *rest, *self._moved, seconds, memory)
        self.steps.scalars.append(row)
        self.steps.layers.append(self._layers)

    def observe(self, step: int) -> None:
        """Take the cue and the flatness that are due at ``step``."""
        with self.watching(), self.adapter.kept():
            if step in self.settings.cue_steps:
                self.cues += self.cue_meter.take(self.adapter, [0], [step], [self.data.heldout])
            usable = [row for row in self.rows.rows if row.answer_tokens > 0][: flatness_rows(self.base)]
            if step == self.settings.flatness_at and usable and not self.pictured:
                (self.flatness,) = measure_flatness(
                    self.base, self.adapter, [0], [self.recipe], [usable], [step]
                )

    def place_visits(self, visits: Sequence[Visit], no_rows: str) -> None:
        """Give every visit so far its row in the data set, or say why that can't be done."""
        self.steps.forget_visits()
        reason = no_rows or self.rows.reason
        places: dict[int, list[int]] = {}
        for index, key in enumerate(self.rows.keys):
            places.setdefault(key, []).append(index)
        if not reason and any(visit.key not in places for visit in visits):
            reason = "rows in the batches differ from the rows of the data set"
        self._no_visits = reason
        if reason:
            return
        seen: dict[int, int] = {}
        for visit in visits:
            # Rows with the same tokens take turns: which of them it was makes no difference.
            turn = seen.get(visit.key, 0)
            seen[visit.key] = turn + 1
            self.steps.visit_step.append(visit.step)
            self.steps.visit_row.append(places[visit.key][turn % len(places[visit.key])])
            self.steps.visit_nll.append(visit.nll_nats)
            self.steps.visit_tokens.append(visit.tokens)

    def trace(self, failure: str) -> ProbeTrace:
        """The trace of what was recorded."""
        benchmark = self.settings.cue_benchmark
        layers = tuple(name for name, _ in self.meter.slices)
        info = TraceInfo(
            base=self.base.name,
            base_fingerprint=self.base.fingerprint,
            data_fingerprint=self.data.fingerprint,
            recipe=self.recipe.full(),
            total_steps=self.trainer.state.max_steps,
            train_rows=self.train_rows,
            heldout_rows=len(self.data.heldout),
            parameters=int(self.meter.active[0]),
            layers=layers,
            benchmark=benchmark.name if benchmark else "",
            item_subjects=tuple(item.subject for item in benchmark.items) if benchmark else (),
            chance_pp=benchmark.chance_pp if benchmark else 0.0,
            metric=benchmark.metric if benchmark else "accuracy",
            failure=failure,
            versions=tuple((name, version(name)) for name in ("torch", "transformers", "peft", "accelerate")),
            device=self.base.device,
        )
        return ProbeTrace(
            info,
            self.steps.columns(len(layers)),
            self.steps.visits(),
            tuple(self.cues),
            self.flatness,
            (*self.absent, *self._missing()),
        )

    def _missing(self) -> Iterator[tuple[str, str]]:
        if self._no_visits:
            yield "row visits", self._no_visits
        if self.settings.cue_benchmark is None:
            yield "benchmark cues", "no benchmark was given"
        if not self.data.heldout:
            yield "held-out loss", self.pictured or "the Trainer has no map-style eval_dataset"
        if not self.settings.reference_texts:
            yield "reference loss", "no reference texts were given"
        if self.flatness is None:
            yield "flatness", self._why_no_flatness()
        if self.sampled:
            yield "data features", f"measured on {len(self.examples):,} of {self.data_rows:,} rows"
        if self.dataset_rows is None:
            yield "train rows", "the data set is a stream: counted are the rows that all steps take"
        if self.skipped:
            yield SKIPPED, f"the gradient scaler skipped {self.skipped} steps"

    def _why_no_flatness(self) -> str:
        at = self.settings.flatness_at
        if at is None:
            return "it was not asked for"
        if self.pictured:
            return self.pictured
        if not self.rows.answer_tokens:
            return self.rows.reason or "no row has a trained answer"
        return f"the probe ended before step {at}"

    @property
    def sampled(self) -> bool:
        """Whether the examples are some of the rows only."""
        return 0 < len(self.examples) < self.data_rows

    @property
    def data_rows(self) -> int:
        """How many rows the examples stand for: those given, or all of the Trainer's; 0 for a stream."""
        read = len(self.rows.keys)
        if self.given or not read:
            return len(self.examples)
        # Lines of packed rows may hold several: as many in the lines not read as in those that were.
        return round(read * self.train_rows / self.rows.items)

    @property
    def length(self) -> RunLength:
        """The run's rows or packed lines, its steps, and the tokens of a row."""
        tokens = self.rows.tokens / self.rows.items if self.rows.items else _NAN
        return RunLength(self.train_rows, self.trainer.state.max_steps, tokens)

    @property
    def train_rows(self) -> int:
        """Rows of the Trainer's data set; of a stream those that all steps take."""
        if self.dataset_rows is not None:
            return self.dataset_rows
        return int(self.trainer.state.max_steps * self.recipe.rows_per_step)


def _prompts_trained(examples: Sequence[Example], rows: Sequence[Encoded]) -> bool:
    """Whether rows are trained from their first tokens on, though they have prompts."""
    prompts = sum(bool(example.prompt) for example in examples)
    whole = sum(all(row.answer[:2]) for row in rows)
    return 2 * prompts > len(examples) and 2 * whole > len(rows)


def _heldout_rows(trainer: Trainer) -> tuple[tuple[Encoded, ...], bool]:
    """The first rows of the evaluation set, none of the user's training rows, and whether they hold images.

    Of rows with images none is given.
    """
    dataset = trainer.eval_dataset
    if isinstance(dataset, dict):
        dataset = next(iter(dataset.values()), None)
    indexed = is_indexed(dataset)
    if dataset is None or not indexed:
        return (), False
    # Only asked for its collator and its columns: iterating it would draw random numbers.
    loader = trainer.get_eval_dataloader(dataset)
    found = read_rows(loader.dataset, loader.collate_fn, MAX_HELDOUT_ROWS)
    usable = tuple(row for row in found.rows if row.answer_tokens > 0)
    return () if found.pictured else usable, found.pictured
