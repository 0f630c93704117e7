"""The libraries, imported so that they never reach for the network, and quiet.

What always holds: the variables that forbid the network are set before any of the libraries is imported here; what is
missing is a `ConfigError` that says how to install it.
"""

from __future__ import annotations

import importlib
import os
import threading
import warnings

from schemas.errors import ConfigError

VARIABLES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
LIBRARIES = ("torch", "safetensors.torch", "transformers", "diffusers", "accelerate", "peft", "PIL.Image")
_lock = threading.Lock()
_done = False


def libraries() -> None:
    """Import all of them, once; takes some seconds."""
    global _done
    with _lock:
        if _done:
            return
        os.environ.update(VARIABLES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a library says of another is nothing for our log
            try:
                for name in LIBRARIES:
                    importlib.import_module(name)
            except ImportError as error:
                raise ConfigError(
                    f"models of type diffusion need a package that cannot be imported ({error.name or error}); "
                    "run `make up`, or `pip install 'roost[diffusion]'`"
                ) from None
            _quiet()
        _done = True


def _quiet() -> None:
    """What goes wrong comes as an exception; the rest is no news."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
