"""The commands' common parts: console, settings, data folder, and errors as one line."""

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, Never

import typer
from pydantic import ValidationError
from rich.console import Console

from eshop.cluster.errors import ClusterError
from eshop.cluster.folder import DataFolder
from eshop.environment import PREFIX, drop_postgres_variables
from eshop.settings import Settings

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Data folder; ESHOP_DATA or .eshop if not given."),
]


class App(typer.Typer):
    """A command that ends with 1 and one message, never with a traceback."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command; turn its exception into a message."""
        drop_postgres_variables()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # a terminal's encoding may know none of our marks
                stream.reconfigure(errors="replace")
        try:
            return super().__call__(*args, **kwargs)
        except ClusterError as error:
            fail(str(error))
        except ValidationError as error:
            fail("settings: " + "; ".join(_setting_error(found) for found in error.errors()))
        except Exception as error:  # noqa: BLE001  (the border of the program)
            fail(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


def _setting_error(found: Any) -> str:
    name = "_".join(map(str, found["loc"])).upper()
    return f"{PREFIX}{name}: {found['msg']}" if name else str(found["msg"])


def fail(message: str) -> Never:
    """Print the message to standard error and end with 1."""
    errors.print("[bold red]error:[/] ", end="")
    errors.print(message, markup=False, soft_wrap=True)
    sys.exit(1)


def data_folder(chosen: Path | None) -> DataFolder:
    """Return the data folder: the option's, else the setting's."""
    return DataFolder(chosen or Settings().data)
