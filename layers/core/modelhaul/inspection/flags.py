"""What a model's reader should know of, and what is no reason to refuse it."""

from collections.abc import Callable, Collection, Iterable
from pathlib import PurePosixPath

_CODE = {".dll", ".dylib", ".ipynb", ".js", ".pl", ".pyc", ".py", ".rb", ".sh", ".so"}
_KERAS = {".h5", ".hdf5", ".keras"}
_TEMPLATES = {"chat_template.json", "chat_template.jinja"}
_CONFIGURATIONS = {"config.json", "tokenizer_config.json", "processor_config.json"}
_NAMES = {"auto_map": "auto-map", "chat_template": "chat-template"}


def flag_files(paths: Iterable[str], find_names: Callable[[str, Collection[str]], Collection[str]]) -> tuple[str, ...]:
    """`code: path`, `auto-map: path` (names code that is loaded with the model), `chat-template: path`, `keras: path`
    (may have Lambda layers), in order. `find_names` tells which of some names a file's JSON has.
    """
    flags: set[str] = set()
    for path in paths:
        place = PurePosixPath(path)
        if place.suffix in _CODE:
            flags.add(f"code: {path}")
        elif place.suffix in _KERAS:
            flags.add(f"keras: {path}")
        elif place.suffix == ".jinja" or place.name in _TEMPLATES:
            flags.add(f"chat-template: {path}")
        elif place.name in _CONFIGURATIONS:
            flags |= {f"{_NAMES[name]}: {path}" for name in find_names(path, _NAMES)}
    return tuple(sorted(flags))
