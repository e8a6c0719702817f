"""`eshop reset`, `eshop topics`, `eshop migrate`: changes of stored data."""

import asyncio
from importlib import import_module
from typing import Annotated

import typer
from aiokafka.errors import KafkaError

from eshop.cli.console import DataOption, console, data_folder
from eshop.cli.operators import ServiceName
from eshop.cluster.errors import ClusterError
from eshop.cluster.os_user import remove_folder
from eshop.contracts.services import SERVICES
from eshop.kafka.topics import Copies, TopicMismatch, ensure_topics
from eshop.settings import Settings


def reset(
    data: DataOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete the data folder: all topics, databases and logs of the local cluster.

    Refuses while the cluster runs.

    Example: [bold]eshop down && eshop reset --yes[/]
    """
    folder = data_folder(data)
    if not folder.path.exists():
        console.print(f"nothing to delete: there is no {folder.path}", markup=False)
        return
    if not folder.is_data_folder():
        raise ClusterError(f"{folder.path} is not a data folder of eshop: nothing was deleted")
    if folder.is_locked():
        raise ClusterError(f"a cluster runs in {folder.path}: end it first with `eshop down`")
    if not yes:
        typer.confirm(f"Delete {folder.path} with everything in it?", abort=True)
    remove_folder(folder.path / "postgres")
    remove_folder(folder.path)
    console.print(f"deleted {folder.path}", markup=False)


def topics() -> None:
    """Create the missing topics of the catalogue on ESHOP_KAFKA, and check the others.

    Example: [bold]ESHOP_KAFKA=127.0.0.1:9092 eshop topics[/]
    """
    settings = Settings()
    copies = Copies(settings.topic_replication, settings.topic_min_in_sync)
    try:
        asyncio.run(ensure_topics(settings.kafka, settings.topic_prefix, copies))
    except (KafkaError, TopicMismatch, TimeoutError) as error:
        raise ClusterError(f"topics on {settings.kafka}: {error or type(error).__name__}") from error
    console.print(f"every topic is on {settings.kafka}", markup=False)


def migrate(
    service: Annotated[
        ServiceName | None, typer.Argument(help="One service only.", show_default=False)
    ] = None,
) -> None:
    """Create and migrate the services' databases, with ESHOP_ADMIN_DATABASE_URL. Safe to repeat.

    Workers do the same at their start, unless the variable is empty for them.

    Example: [bold]eshop migrate orders[/]
    """
    settings = Settings()
    # Only here: the launcher has no need of the store.
    store = import_module("eshop.store.migrate")
    admin_url = settings.admin_url()
    if admin_url is None:
        raise ClusterError("ESHOP_ADMIN_DATABASE_URL is empty: it names who may create databases")
    if settings.database_url is not None and service is None:
        raise ClusterError(
            f"ESHOP_DATABASE_URL is one service's: name one of {', '.join(SERVICES)} after `eshop migrate`"
        )
    for name in [service] if service else SERVICES:
        try:
            store.migrate(name, settings.service_database_url(name), admin_url)
        except store.MigrationBlocked as error:
            raise ClusterError(str(error)) from error
        console.print(f"{name}: migrated", markup=False)
