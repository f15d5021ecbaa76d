"""A live PEFT model as the meters see it: put back to its start, and left as it was."""

from __future__ import annotations

from pathlib import Path

import torch
from training.training_fixtures import write_tiny_model

from tuneahead.integrations.live import LiveAdapter, live_base
from tuneahead.training.models import load_tokenizer


def test_a_run_put_back_to_its_start_has_every_trained_weight_as_it_was(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    write_tiny_model(tmp_path)
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"], use_dora=True)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path), config)
    base = live_base(model, load_tokenizer(str(tmp_path)), "tiny", "cpu")
    adapter = LiveAdapter(base, model)
    ids = torch.arange(3, 9).unsqueeze(0)
    with torch.no_grad():
        begun = model(ids).logits
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1)
        trained = model(ids).logits
        with adapter.as_begun():
            assert torch.equal(model(ids).logits, begun)
        assert torch.equal(model(ids).logits, trained) and not torch.equal(trained, begun)
