"""A predictor on disk: ``predictor.json``, and beside it the text of each boosted model.

LightGBM crashes on a text that is cut short, so it gets none whose SHA-256 ``predictor.json`` does not name.
Texts are named by their content and ``predictor.json`` is written last: until then a predictor that was in
the folder is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tuneahead.errors import PredictorError
from tuneahead.features.catalogue import CATALOGUE_VERSION
from tuneahead.predictor import fields
from tuneahead.predictor.domain import Domain, domain_from_record
from tuneahead.predictor.explain import Typical
from tuneahead.predictor.fitting import Member
from tuneahead.predictor.intervals import Calibration, calibration_from_record, difficulty_text
from tuneahead.predictor.models import Component, Trees, component_from_record
from tuneahead.predictor.predictor import Origin, Predictor
from tuneahead.predictor.tuning import CONTEXT, Anchor
from tuneahead.wholefile import write_whole

SCHEMA = 1
_FILE = "predictor.json"
_TEXT = re.compile(r"(trees|difficulty)(_[0-9a-f]+)?\.txt")
"""Names of texts; those of an earlier version are numbered, and the difficulty's has no number."""
_REMEDY = "fetch the folder again, or fit and save the predictor anew"


def write_predictor(predictor: Predictor, folder: Path) -> None:
    """Write what :func:`read_predictor` reads; raises OSError.

    Of what is in the folder, only the texts of the predictor that is replaced are taken out of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    boosted = [_text_of(member.component) for member in predictor.members]
    named = {_name("trees", text): text for text in boosted if text}
    if text := difficulty_text(predictor.calibration):
        named[_name("difficulty", text)] = text
    sums = {name: _sha256(text) for name, text in named.items()}
    record = json.dumps({**_record(predictor), "texts": sums})
    before = _texts_in(folder)
    try:
        for name, text in named.items():
            write_whole(folder / name, text.encode())
        write_whole(folder / _FILE, record.encode())
    except BaseException:
        _remove(folder, sums, _texts_in(folder))
        raise
    _remove(folder, before, sums)


def _record(predictor: Predictor) -> dict[str, object]:
    calibration = predictor.calibration.to_record()
    if text := difficulty_text(predictor.calibration):
        calibration["text"] = _name("difficulty", text)
    return {
        "schema": SCHEMA,
        "catalogue": CATALOGUE_VERSION,
        "names": predictor.names,
        "context": predictor.context,
        "anchor": predictor.anchor,
        "members": [_member_record(member) for member in predictor.members],
        "calibration": calibration,
        "domain": predictor.domain.to_record(),
        "typical": asdict(predictor.typical),
        "chance_pp": predictor.chance_pp,
        "level": predictor.level,
        "shift_pp": predictor.shift_pp,
        "recipe_sd_pp": predictor.recipe_sd_pp,
        "origin": asdict(predictor.origin),
    }


def _member_record(member: Member) -> dict[str, object]:
    text = _text_of(member.component)
    return {
        "weight": member.weight,
        "columns": list(member.columns),
        "model": member.component.to_record(),
        **({"text": _name("trees", text)} if text else {}),
    }


def _text_of(component: Component) -> str:
    return component.text if isinstance(component, Trees) else ""


def _name(what: str, text: str) -> str:
    return f"{what}_{_sha256(text)[:12]}.txt"


def _texts_in(folder: Path) -> Mapping[str, object]:
    """SHA-256 by name of the texts that the ``predictor.json`` in ``folder`` names, if there is one."""
    try:
        record = fields.mapping(json.loads((folder / _FILE).read_text(encoding="utf-8")), _FILE)
        return fields.mapping(record["texts"], "texts")
    except (OSError, *fields.WRONG):
        return {}


def _remove(folder: Path, sums: Mapping[str, object], kept: Mapping[str, object]) -> None:
    """Take texts out of ``folder``, each only if it is what was written: the folder may hold other files."""
    for name in set(sums) - set(kept):
        # Left behind it would be in nobody's way: no reason for a save to fail.
        with contextlib.suppress(OSError, ValueError):
            if _TEXT.fullmatch(name) and _sha256((folder / name).read_text(encoding="utf-8")) == sums[name]:
                (folder / name).unlink()


def read_predictor(folder: Path) -> Predictor:
    """Restore what :func:`write_predictor` wrote; raises :class:`PredictorError` on anything else."""
    try:
        record = fields.mapping(json.loads((folder / _FILE).read_text(encoding="utf-8")), _FILE)
        if record["schema"] != SCHEMA:
            raise ValueError(f"schema {record['schema']!r:.60}, this version reads {SCHEMA}")
        # Predictors of an earlier version don't say.
        if (catalogue := record.get("catalogue", CATALOGUE_VERSION)) != CATALOGUE_VERSION:
            raise PredictorError(
                f"{folder} was fitted to features of catalogue version {catalogue!r:.60}, and this version "
                f"of tuneahead measures those of {CATALOGUE_VERSION!r}",
                remedy="fit the predictor anew, or use the version of tuneahead that fitted it",
            )
        return _predictor(record, folder)
    except (OSError, *fields.WRONG) as error:
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise PredictorError(
            f"{folder} holds no predictor: {why}",
            remedy="give the folder that 'fit' wrote, undamaged and by no later version of tuneahead",
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
    name = fields.text(stored.get("text", f"trees_{index}.txt"), f"the text of {what}")
    component = component_from_record(model, read(name) if _boosted(model) else "")
    if component.feature_count != len(columns):
        raise ValueError(f"{what} reads {len(columns)} columns, its model {component.feature_count}")
    weight = fields.number(stored["weight"], f"the weight of {what}")
    if weight < 0:
        raise ValueError(f"the weight of {what} is {weight}")
    return Member(weight, columns, component)


def _calibration(found: object, width: int, read: Callable[[str], str]) -> Calibration:
    stored = fields.mapping(found, "calibration")
    difficulty = stored["difficulty"]
    name = fields.text(stored.get("text", "difficulty.txt"), "the text of the calibration")
    calibration = calibration_from_record(stored, read(name) if _boosted(difficulty) else "")
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


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _verified(folder: Path, sums: Mapping[str, object], name: str) -> str:
    """A model's text, if it is the one that was saved; raises :class:`PredictorError`."""
    path = folder / name
    if not _TEXT.fullmatch(name):
        raise ValueError(f"{name!r:.60} is no name of a model's text")
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
