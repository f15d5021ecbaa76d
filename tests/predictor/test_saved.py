"""A damaged predictor is refused with the file's name: never a crash, never a forecast of another one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged_records import NOT_RECORDS, damaged

from tuneahead.errors import PredictorError
from tuneahead.features.vector import FeatureVector
from tuneahead.predictor.intervals import Calibration
from tuneahead.predictor.kernel import KernelRidge
from tuneahead.predictor.linear import Ridge
from tuneahead.predictor.models import GREEDY_TREES, Boosting
from tuneahead.predictor.predictor import Predictor, load_predictor
from tuneahead.predictor.tuning import Contestant, Preset

TREES = Boosting("trees", GREEDY_TREES, (5,))


def mixed(table, learner: Any, seed: int = 0) -> Predictor:
    """A predictor of this one learner whose intervals are scaled by boosted trees."""
    found = Predictor.fit(table, preset=Preset("one", (Contestant(learner),), anchors=("probe",)), seed=seed)
    features = np.column_stack([table.values, np.zeros((len(table), 3))])
    ones = np.ones(len(table))
    difficulty = TREES.fit(features, np.abs(table.score_pp - 50.0), ones, 0).at(0)
    return replace(found, calibration=Calibration(ones, table.data_ids, difficulty, 1.0))


@pytest.fixture(scope="module")
def table(make_table):
    return make_table(24, 8)


@pytest.fixture(scope="module")
def saved(table, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    mixed(table, TREES).save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_the_folder_holds_the_texts_that_its_json_names(saved, table):
    sums = json.loads((saved / "predictor.json").read_text())["texts"]
    assert sorted(name[:-17] for name in sums) == ["difficulty", "trees"]
    assert {path.name for path in saved.iterdir()} == {"predictor.json", *sums}
    assert np.isfinite(load_predictor(saved).predict_table(table).score_pp).all()


@pytest.mark.parametrize("kind", ["trees", "difficulty"])
def test_a_text_that_is_cut_changed_or_gone_never_reaches_lightgbm(folder, kind):
    (path,) = folder.glob(f"{kind}_*.txt")
    whole, name = path.read_bytes(), path.name
    for content in (whole[: len(whole) // 2], b"", whole.replace(b"0", b"1", 1), b"\xff" + whole):
        path.write_bytes(content)
        with pytest.raises(PredictorError, match=rf"{name} (is damaged|can't be read)[\s\S]*fit and save"):
            load_predictor(folder)
    path.unlink()
    with pytest.raises(PredictorError, match=f"{name} is missing"):
        load_predictor(folder)


def test_line_ends_of_another_system_are_no_damage(folder, table):
    before = load_predictor(folder).predict_table(table)
    for path in folder.glob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(load_predictor(folder).predict_table(table).score_pp, before.score_pp)


def test_a_save_that_fails_half_way_leaves_the_predictor_that_was_there_and_nothing_else(folder, table):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = mixed(replace(table, score_pp=table.score_pp / 2), TREES)
    # The trees' text can be written, that of the difficulty can't.
    other.save(folder.parent / "other")
    (blocked,) = (path.name for path in (folder.parent / "other").glob("difficulty_*.txt"))
    (folder / blocked).mkdir()
    with pytest.raises(OSError):
        other.save(folder)
    (folder / blocked).rmdir()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_save_takes_out_the_texts_of_the_predictor_it_replaces_and_no_other_file(folder, table):
    earlier_form(folder)
    mine = {"trees_of_europe.txt": "oak", "trees_7.txt": "beech", "difficulty_1.txt": "hard"}
    for name, text in mine.items():
        (folder / name).write_text(text)
    change(folder, lambda record: record["texts"].update({"difficulty_1.txt": "another's", "../x.txt": "y"}))
    mixed(replace(table, score_pp=table.score_pp / 2), TREES).save(folder)
    sums = json.loads((folder / "predictor.json").read_text())["texts"]
    assert {path.name for path in folder.iterdir()} == {"predictor.json", *sums, *mine}
    assert load_predictor(folder).predict_table(table).score_pp.max() < 60.0


def earlier_form(folder: Path) -> None:
    """The saved predictor as earlier versions wrote it: numbered texts, and no word of the catalogue."""
    record = json.loads((folder / "predictor.json").read_text())
    old = {
        record["members"][0].pop("text"): "trees_0.txt",
        record["calibration"].pop("text"): "difficulty.txt",
    }
    for name, number in old.items():
        (folder / name).rename(folder / number)
        record["texts"][number] = record["texts"].pop(name)
    del record["catalogue"]
    (folder / "predictor.json").write_text(json.dumps(record))


def test_a_predictor_of_an_earlier_version_is_read(folder, table):
    before = load_predictor(folder).predict_table(table)
    earlier_form(folder)
    np.testing.assert_array_equal(load_predictor(folder).predict_table(table).score_pp, before.score_pp)


def test_a_predictor_of_other_feature_formulas_or_with_fields_of_a_later_version_says_so(folder):
    change(folder, lambda record: record["origin"].update(weather="fair"))
    with pytest.raises(PredictorError, match="has a field 'weather', which a later version may have written"):
        load_predictor(folder)
    change(folder, lambda record: record.update(catalogue="1"))
    with pytest.raises(PredictorError, match=r"catalogue version '1'[\s\S]*fit the predictor anew"):
        load_predictor(folder)


def test_texts_without_a_checksum_are_refused(folder):
    change(folder, lambda record: record.pop("texts"))
    with pytest.raises(PredictorError, match=r"names no SHA-256 of \w+.txt"):
        load_predictor(folder)


def change(folder: Path, edit: Callable[[Any], object]) -> None:
    path = folder / "predictor.json"
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r.update(anchor="bases"), "anchor is 'bases', not one of probe, base, raw"),
        (lambda r: r.update(members=[]), "no model in it"),
        (lambda r: r["members"][0].update(weight="0.5"), "the weight of member 0 is '0.5', not a number"),
        (lambda r: r["members"][0]["columns"].__setitem__(0, 99), "one beyond the 11 that there are"),
        (lambda r: r["members"][0]["columns"].pop(), "member 0 reads 10 columns, its model 11"),
        (lambda r: r["domain"]["names"].__setitem__(0, "wit"), "the domain is of a feature 'wit'"),
        (lambda r: r["domain"].update(names={}), "names of the domain is {}"),
        (lambda r: r["domain"]["low"].pop(), r"low is an array of shape \(\d+,\)"),
        (lambda r: r["domain"]["points"][0].pop(), "inhomogeneous"),
        (lambda r: r["calibration"].update(groups=None), "groups is None"),
        (lambda r: r["calibration"]["scores"].pop(), r"scores is an array of shape \(23,\)"),
        (lambda r: r["calibration"].update(text="../x"), "'../x' is no name of a model's text"),
        (lambda r: r["calibration"].update(difficulty=[]), "difficulty is "),
        (lambda r: r.update(level=90), "level is 90.0, not a probability"),
        (lambda r: r.update(names=[r["names"][0]] * 8), "a feature occurs twice"),
    ],
)
def test_a_field_that_can_t_be_is_named(folder, edit, message):
    change(folder, edit)
    with pytest.raises(PredictorError, match=message):
        load_predictor(folder)


@pytest.mark.parametrize(
    ("learner", "part", "least"),
    [(TREES, "", 500), (Ridge("bent", "hinge"), "members", 150), (KernelRidge(), "members", 150)],
    ids=["whole", "ridge", "kernel"],
)
def test_whatever_is_damaged_the_predictor_is_refused_or_predicts(table, tmp_path, learner, part, least):
    holes = np.where(np.random.default_rng(0).random(table.values.shape) < 0.1, np.nan, table.values)
    mixed(replace(table, values=holes), learner).save(tmp_path)
    path = tmp_path / "predictor.json"
    refused = 0
    record = json.loads(path.read_text())
    for where, _ in damaged(record[part] if part else record):
        path.write_text(json.dumps(record))
        try:
            found = load_predictor(tmp_path)
        except PredictorError as error:
            assert str(tmp_path) in str(error) and error.remedy, where
            refused += 1
            continue
        predicted = found.predict_table(table)
        assert np.isfinite([predicted.score_pp, predicted.low_pp, predicted.high_pp]).all(), where
        baseline, reasons = found.explain(FeatureVector(dict.fromkeys(found.names, 0.0)), 30.0, 40.0)
        assert np.isfinite([baseline, *(reason.contribution_pp for reason in reasons)]).all(), where
    assert refused > least


@pytest.mark.parametrize("content", NOT_RECORDS, ids=lambda content: repr(content[:10]))
def test_a_file_that_is_no_record_is_refused(folder, content):
    (folder / "predictor.json").write_bytes(content)
    with pytest.raises(PredictorError, match="holds no predictor"):
        load_predictor(folder)
