"""YAML from people and programs, read safely."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import yaml

# YAML 1.1 reads 10:30 to the base 60 and 010 to the base 8.
_ODD_NUMBER = re.compile(r"[-+]?(?:[\d_]+(?::[\d_.]+)+|0[\dxbo_][\da-fA-F_]*)\Z")


class SurprisingYaml(ValueError):
    """Valid YAML that means something else than it seems to."""


def read_yaml(text: str, *, strict: bool = False) -> object:
    """The value that a YAML text holds; raises ValueError, saying why, for any text that is none.

    A ``strict`` reading raises :class:`SurprisingYaml` for a key that stands twice in one mapping and
    for numbers that are not decimal.

    >>> read_yaml("rate: 0.5")
    {'rate': 0.5}
    """
    import yaml

    try:
        if strict and (root := yaml.compose(text, yaml.SafeLoader)) is not None:
            _refuse_surprises(root, "", set())
        loaded: object = yaml.safe_load(text)
    except RecursionError:
        raise ValueError("nested too deeply to be read") from None
    except SurprisingYaml:
        raise
    # Besides its own errors the loader lets those of Python through: a month 13, an integer of 5,000
    # digits, or a tag such as !!bool on what is none.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(str(error)) from None
    return loaded


def _refuse_surprises(node: yaml.Node, key: str, done: set[int]) -> None:
    import yaml

    # An alias leads to a node that was looked at already, or even into itself.
    if id(node) in done:
        return
    done.add(id(node))
    if isinstance(node, yaml.MappingNode):
        _refuse_twins(node)
        for name, value in node.value:
            _refuse_surprises(value, str(name.value), done)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_surprises(value, key, done)
    elif node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and _ODD_NUMBER.match(node.value):
        what = f"{key} is {node.value}{_line(node)}" if key else str(node.value)
        raise SurprisingYaml(f"{what}, which is no decimal number to YAML (10:30 is 630, 010 is 8)")


def _refuse_twins(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for name, _ in node.value:
        key = str(name.value)
        if key in seen:
            raise SurprisingYaml(f"the key {key!r} stands twice{_line(name)}")
        seen.add(key)


def _line(node: yaml.Node) -> str:
    line: int = node.start_mark.line
    return f" (line {line + 1})" if line else ""
