"""Many rows as parameters of one statement: an array per column, joined by position."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import TableValuedAlias, bindparam, cast, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine


def array_table(**columns: type[TypeEngine[Any]] | TypeEngine[Any]) -> TableValuedAlias:
    """Return a table made of array parameters of the columns' names, with the ordinal ``position``."""
    arrays = [cast(bindparam(f"{name}_rows"), ARRAY(type_)) for name, type_ in columns.items()]
    return (
        func.unnest(*arrays).table_valued(*columns, with_ordinality="position", name="given").render_derived()
    )


def array_parameters(names: Sequence[str], values: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    """Return the parameters for ``rows``: one list per name, from one sequence per row."""
    columns = map(list, zip(*values, strict=True)) if values else ([] for _ in names)
    return {f"{name}_rows": column for name, column in zip(names, columns, strict=True)}
