"""A predictor on disk: ``predictor.json``, and beside it the text of each boosted model.

LightGBM crashes on a text that is cut short, so it gets none whose SHA-256 ``predictor.json`` does not name.
That file is written last: a save that was interrupted is found out, never taken for one predictor.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tuneahead.errors import PredictorError
from tuneahead.predictor import fields
from tuneahead.predictor.domain import Domain, domain_from_record
from tuneahead.predictor.explain import Typical
from tuneahead.predictor.fitting import Member
from tuneahead.predictor.intervals import Calibration, calibration_from_record, difficulty_text
from tuneahead.predictor.models import Trees, component_from_record
from tuneahead.predictor.predictor import Origin, Predictor
from tuneahead.predictor.tuning import CONTEXT, Anchor

SCHEMA = 1
_FILE = "predictor.json"
_DIFFICULTY = "difficulty.txt"
_REMEDY = "fetch the folder again, or fit and save the predictor anew"


def write_predictor(predictor: Predictor, folder: Path) -> None:
    """Write what :func:`read_predictor` reads; raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        _trees(i): member.component.text
        for i, member in enumerate(predictor.members)
        if isinstance(member.component, Trees)
    }
    if difficulty_text(predictor.calibration):
        texts[_DIFFICULTY] = difficulty_text(predictor.calibration)
    for name, text in texts.items():
        _write(folder / name, text)
    record = {**_record(predictor), "texts": {name: _sha256(text) for name, text in texts.items()}}
    _write(folder / _FILE, json.dumps(record))
    for stale in (*folder.glob("trees_*.txt"), folder / _DIFFICULTY):
        if stale.name not in texts:
            stale.unlink(missing_ok=True)


def _record(predictor: Predictor) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "names": predictor.names,
        "context": predictor.context,
        "anchor": predictor.anchor,
        "members": [
            {"weight": member.weight, "columns": list(member.columns), "model": member.component.to_record()}
            for member in predictor.members
        ],
        "calibration": predictor.calibration.to_record(),
        "domain": predictor.domain.to_record(),
        "typical": asdict(predictor.typical),
        "chance_pp": predictor.chance_pp,
        "level": predictor.level,
        "shift_pp": predictor.shift_pp,
        "recipe_sd_pp": predictor.recipe_sd_pp,
        "origin": asdict(predictor.origin),
    }


def _write(path: Path, text: str) -> None:
    # Written beside and renamed: whoever reads meanwhile gets the old file or the new one, never a part.
    beside = path.with_name(f"{path.name}.writing")
    beside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(beside, path)


def read_predictor(folder: Path) -> Predictor:
    """Restore what :func:`write_predictor` wrote; raises :class:`PredictorError` on anything else."""
    try:
        record = fields.mapping(json.loads((folder / _FILE).read_text(encoding="utf-8")), _FILE)
        if record["schema"] != SCHEMA:
            raise ValueError(f"schema {record['schema']!r:.60}, this version reads {SCHEMA}")
        return _predictor(record, folder)
    except (OSError, *fields.WRONG) as error:
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise PredictorError(
            f"{folder} holds no predictor: {why}", remedy="give the folder that 'save' wrote, undamaged"
        ) from None


def _predictor(record: Mapping[str, object], folder: Path) -> Predictor:
    read = partial(_verified, folder, fields.mapping(record.get("texts", {}), "texts"))
    names, context = fields.texts(record["names"], "names"), fields.flag(record["context"], "context")
    columns = (*names, *CONTEXT) if context else names
    if len(set(columns)) != len(columns):
        raise ValueError("a feature occurs twice")
    members = fields.listing(record["members"], "members")
    if not members:
        raise ValueError("there is no model in it")
    level = fields.number(record["level"], "level")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}, not a probability")
    return Predictor(
        names=names,
        context=context,
        anchor=typing.cast(Anchor, fields.word(record["anchor"], "anchor", typing.get_args(Anchor))),
        members=tuple(_member(one, i, len(columns), read) for i, one in enumerate(members)),
        calibration=_calibration(record["calibration"], len(columns), read),
        domain=_domain(record["domain"], columns),
        typical=_typical(record["typical"]),
        chance_pp=fields.number(record["chance_pp"], "chance_pp", absent=True),
        level=level,
        shift_pp=fields.number(record["shift_pp"], "shift_pp"),
        # Predictors of an earlier version have none.
        recipe_sd_pp=_sd(record.get("recipe_sd_pp", math.nan)),
        origin=fields.plain(Origin, record["origin"], "origin"),
    )


def _sd(found: object) -> float:
    value = fields.number(found, "recipe_sd_pp", absent=True)
    if value < 0:
        raise ValueError(f"recipe_sd_pp is {value}")
    return value


def _member(found: object, index: int, width: int, read: Callable[[str], str]) -> Member:
    what = f"member {index}"
    stored = fields.mapping(found, what)
    listed = fields.listing(stored["columns"], f"the columns of {what}")
    columns = tuple(fields.whole(one, f"a column of {what}", least=0) for one in listed)
    if len(set(columns)) != len(columns) or max(columns, default=width) >= width:
        raise ValueError(f"{what} reads no column, one twice, or one beyond the {width} that there are")
    model = fields.mapping(stored["model"], f"the model of {what}")
    component = component_from_record(model, read(_trees(index)) if _boosted(model) else "")
    if component.feature_count != len(columns):
        raise ValueError(f"{what} reads {len(columns)} columns, its model {component.feature_count}")
    weight = fields.number(stored["weight"], f"the weight of {what}")
    if weight < 0:
        raise ValueError(f"the weight of {what} is {weight}")
    return Member(weight, columns, component)


def _calibration(found: object, width: int, read: Callable[[str], str]) -> Calibration:
    stored = fields.mapping(found, "calibration")
    difficulty = stored["difficulty"]
    calibration = calibration_from_record(stored, read(_DIFFICULTY) if _boosted(difficulty) else "")
    model = calibration.difficulty
    if model is not None and model.feature_count != width:
        raise ValueError(f"the difficulty is of {model.feature_count} columns, the models of {width}")
    return calibration


def _domain(found: object, columns: Sequence[str]) -> Domain:
    domain = domain_from_record(fields.mapping(found, "domain"))
    unknown = next((name for name in domain.names if name not in columns), None)
    if unknown is not None:
        raise ValueError(f"the domain is of a feature {unknown!r:.60} that the models do not read")
    return domain


def _typical(found: object) -> Typical:
    typical = fields.plain(Typical, found, "typical")
    # The other two are NaN where no training row had a base score.
    if not math.isfinite(typical.anchor_pp) or not math.isfinite(typical.headroom_pp):
        raise ValueError("what is typical holds a value that is not finite")
    return typical


def _boosted(model: object) -> bool:
    return isinstance(model, dict) and model.get("kind") == "trees"


def _trees(index: int) -> str:
    return f"trees_{index}.txt"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _verified(folder: Path, sums: Mapping[str, object], name: str) -> str:
    """A model's text, if it is the one that was saved; raises :class:`PredictorError`."""
    path = folder / name
    if name not in sums:
        # Written before checksums were, perhaps; it can't be told from a damaged one.
        raise PredictorError(f"{folder / _FILE} names no SHA-256 of {name}", remedy=_REMEDY)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PredictorError(f"{path} is missing, and the predictor needs it", remedy=_REMEDY) from None
    except (OSError, UnicodeDecodeError) as error:
        raise PredictorError(f"{path} can't be read: {error}", remedy=_REMEDY) from None
    if _sha256(text) != sums[name]:
        raise PredictorError(
            f"{path} is damaged or of another predictor: its SHA-256 begins with {_sha256(text)[:12]},"
            f" {_FILE} says {str(sums[name])[:12]}",
            remedy=_REMEDY,
        )
    return text
