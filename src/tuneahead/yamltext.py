"""YAML from people and programs, read safely."""

from __future__ import annotations


def read_yaml(text: str) -> object:
    """The value that a YAML text holds; raises ValueError, saying why, for any text that is none.

    >>> read_yaml("rate: 0.5")
    {'rate': 0.5}
    """
    import yaml

    try:
        loaded: object = yaml.safe_load(text)
    except RecursionError:
        raise ValueError("nested too deeply to be read") from None
    # Besides its own errors the loader lets those of Python through: a month 13, an integer of 5,000
    # digits, or a tag such as !!bool on what is none.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(str(error)) from None
    return loaded
