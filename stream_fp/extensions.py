"""What other packages add to the commands: found by name through entry points, loaded when it is asked for.

The online service needs none of it and imports none of it. `offline` registers its part in ``pyproject.toml``.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Final

from stream_fp.errors import ConfigError

__all__ = ["load_extension"]

_GROUP: Final = "stream_fp.extensions"


def load_extension(name: str, *, setting: str, extra: str = "offline") -> Any:  # noqa: ANN401 - whatever was registered
    """Return what is registered under `name`.

    Parameters
    ----------
    name : str
    setting : str
        What the user asked for that needs it; the error names it.
    extra : str
        Of this package, that brings what it imports.

    Raises
    ------
    ConfigError
        When nothing is registered, or a package that it imports is not installed.
    """
    for entry in entry_points(group=_GROUP, name=name):
        try:
            return entry.load()
        except ModuleNotFoundError as error:
            raise ConfigError(
                setting, f"needs `{error.name}`, which is not installed: pip install 'stream-fp[{extra}]'"
            ) from error
    raise ConfigError(setting, f"needs the offline package, which is not installed: pip install 'stream-fp[{extra}]'")
