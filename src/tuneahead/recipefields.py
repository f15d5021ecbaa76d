"""What a field of a recipe may hold, in words for messages and for the docs."""

from __future__ import annotations

import typing

from pydantic.fields import FieldInfo

_EXAMPLES = {
    "learning_rate": "2e-4",
    "max_steps": "600",
    "max_grad_norm": "1.0",
    "target_modules": "q_proj, v_proj",
}
"""Where the default would show nothing."""


def may_be_empty(field: FieldInfo) -> bool:
    """Whether none is a value of the field."""
    return type(None) in typing.get_args(field.annotation)


def allowed(field: FieldInfo) -> str:
    """The choices of a text, the bounds of a number, in words.

    >>> from tuneahead.recipe import Recipe
    >>> allowed(Recipe.model_fields["max_steps"])
    'a whole number from 1 to 10,000,000, or none'
    """
    if typing.get_origin(field.annotation) is typing.Literal:
        *most, last = typing.get_args(field.annotation)
        return f"{', '.join(most)} or {last}"
    kinds = typing.get_args(field.annotation) or (field.annotation,)
    if int not in kinds and float not in kinds:
        return "all-linear, or names of layers with commas between them"
    number = "a whole number" if int in kinds else "a number"
    return f"{number} {_bounds(field)}{', or none' if may_be_empty(field) else ''}"


def _bounds(field: FieldInfo) -> str:
    found: dict[str, float] = {
        name: getattr(one, name)
        for one in field.metadata
        for name in ("gt", "ge", "lt", "le")
        if getattr(one, name, None) is not None
    }
    lower = f"above {found['gt']:,}" if "gt" in found else f"from {found['ge']:,}"
    if "lt" in found:
        return f"{lower}, below {found['lt']:,}"
    if "le" in found:
        return f"{lower}{', at most' if 'gt' in found else ' to'} {found['le']:,.0f}"
    return lower if "gt" in found else f"of {found['ge']:,} or more"


def next_step(name: str, field: FieldInfo) -> str:
    """What to do about a wrong value.

    >>> from tuneahead.recipe import Recipe
    >>> next_step("learning_rate", Recipe.model_fields["learning_rate"])
    'give a number above 0, such as 2e-4'
    """
    if typing.get_origin(field.annotation) is typing.Literal:
        return f"give {allowed(field)}"
    return f"give {allowed(field)}, such as {_EXAMPLES.get(name, field.default)}"
