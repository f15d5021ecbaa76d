"""The lab's bases: the shipped one loads and knows its world; a new one is the same every time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tuneahead.errors import ModelError
from tuneahead.lab.bases import BASE_SPECS, base_spec, lab_base_path, new_model, pretrain
from tuneahead.lab.exam import lab_exam, reference_statements
from tuneahead.training.models import resolve_base


def test_the_shipped_base_knows_what_its_text_said() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(lab_base_path())
    model = AutoModelForCausalLM.from_pretrained(lab_base_path(), dtype=torch.float32).eval()
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert model.num_parameters() < 1_200_000
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    with torch.no_grad():
        losses = [
            float(model(input_ids=ids, labels=ids).loss)
            for ids in (torch.tensor([tokenizer.encode(text)]) for text in reference_statements())
        ]
    assert sum(losses) / len(losses) < 2.0


def test_the_tokenizer_splits_digits_and_joins_prompt_and_answer_without_seams() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(lab_base_path())
    assert tokenizer.tokenize("123") == ["1", "2", "3"]
    text = "Question: Où est Côte d’Ivoire?\nAnswer: 42"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    for item in lab_exam().items[::40]:
        tail = f" {item.options[0]}"  # type: ignore[union-attr]
        assert tokenizer.encode(item.prompt) + tokenizer.encode(tail) == tokenizer.encode(item.prompt + tail)


@pytest.mark.parametrize("name", sorted(BASE_SPECS))
def test_every_spec_makes_a_tiny_model_of_its_architecture(name: str) -> None:
    model = new_model(base_spec(name), eos_id=0, pad_id=1)
    assert BASE_SPECS[name].architecture in type(model).__name__.lower()
    assert 100_000 < model.num_parameters() < 1_300_000


def test_pretraining_twice_gives_the_same_weights_and_loads_again(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    spec = replace(base_spec("lab-proxy"), steps=3, rows=2, sequence_tokens=32)
    for folder in ("one", "two"):
        pretrain(spec, tmp_path / folder, log=lambda line: None)
    weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("one", "two")]
    assert weights[0] == weights[1]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "one").num_parameters() > 100_000
    assert resolve_base(str(tmp_path / "one")) == ("lab-proxy", str(tmp_path / "one"))
    assert resolve_base(str(tmp_path)) == (str(tmp_path), str(tmp_path))


def test_an_unknown_base_is_refused_with_the_known_names() -> None:
    with pytest.raises(ModelError, match="lab-nothing"):
        base_spec("lab-nothing")
