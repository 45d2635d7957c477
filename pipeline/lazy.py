"""Names that a package has without importing their modules."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, modules: Mapping[str, str], missing: Callable[[str], Any] | None = None) -> Callable[[str], Any]:
    """Return the `__getattr__` of `package` that imports a name from its module when it is first used (PEP 562).

    `modules`: the module of each name, absolute or relative to `package`. `missing`: gives a value for a name that the
    module does not have, or whose module does not exist.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(modules[name], package), name)
        except (ModuleNotFoundError, AttributeError):
            if missing is None:
                raise
            return missing(name)

    return get
