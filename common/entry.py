"""Where a command begins: before anything slow is imported, so that Ctrl-C ends it with a word from the first moment on."""

import sys
from importlib import import_module
from typing import NoReturn


def enter(command_line: str) -> NoReturn:
    """Import the module `command_line`, which takes a second, and run its `main`."""
    try:
        main = import_module(command_line).main
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        sys.exit(130)
    main()
    sys.exit(0)
