"""The database: made once by many, guarded by roles, and honest about faults."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import psycopg2.errors
import pytest
from aiopg import Pool
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from eshop.cluster.embedded import EmbeddedCluster
from eshop.contracts.services import SERVICES
from eshop.store import database as database_module
from eshop.store.database import Database, Session
from eshop.store.faults import LockTimeout, TransientFault
from eshop.store.migrate import migrate, on_database
from eshop.store.schema import schema_of
from eshop.store.unit_of_work import OrdersUnitOfWork, PaymentsUnitOfWork, Store
from tests.support.builders import new_database_url


@pytest.mark.parametrize("service", SERVICES)
def test_many_workers_starting_at_once_make_one_database(cluster: EmbeddedCluster, service: str) -> None:
    database_url = new_database_url(cluster.postgres_admin_url, service)
    with ThreadPoolExecutor(6) as pool:
        workers = [pool.submit(migrate, service, database_url, cluster.postgres_admin_url) for _ in range(6)]
        for worker in workers:
            worker.result()
    url = make_url(database_url).set(drivername="postgresql+psycopg2")
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            options = {
                "include_object": lambda thing, name, kind, *_: (
                    kind in ("table", "column") and name != "alembic_version"
                )
            }
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, schema_of(service)) == []
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    "verb", ["UPDATE legs SET amount_minor = 1", "DELETE FROM transfers", "TRUNCATE legs"]
)
async def test_ledger_cannot_forget(payments: Store[PaymentsUnitOfWork], verb: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        await payments.database.transact(lambda session: session.run_sql(verb))


async def test_payments_cannot_open_the_orders_database(
    orders: Store[OrdersUnitOfWork], payments: Store[PaymentsUnitOfWork]
) -> None:
    theirs = make_url(orders.database.url).database
    mine = make_url(payments.database.url).set(database=theirs).render_as_string(hide_password=False)
    intruder = Database(mine, "intruder")
    with pytest.raises(psycopg2.OperationalError, match="permission denied"):
        await intruder.open()


async def test_statement_timeout_at_the_server_is_a_transient_fault(orders: Store[OrdersUnitOfWork]) -> None:
    async def slow(session: Session) -> None:
        await session.run_sql("SET LOCAL statement_timeout = 50")
        await session.run_sql("SELECT pg_sleep(5)")

    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    with pytest.raises(TransientFault):
        await orders.database.transact(slow)
    assert await orders.database.transact(lambda session: session.run_sql("SELECT 1"))


async def test_lost_connection_is_a_transient_fault_and_the_next_one_works(
    orders: Store[OrdersUnitOfWork],
) -> None:
    with pytest.raises(TransientFault):
        await orders.database.transact(
            lambda session: session.run_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        )
    assert await orders.database.transact(lambda session: session.run_sql("SELECT 1"))


async def test_socket_that_is_gone_before_it_is_watched_is_a_transient_fault(
    orders: Store[OrdersUnitOfWork], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(_pool: Pool) -> None:
        raise RuntimeError("unable to perform operation; the handler is closed")  # as uvloop says it

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "acquire", connect)
        with pytest.raises(TransientFault):
            await orders.database.transact(lambda session: session.run_sql("SELECT 1"))
    assert await orders.database.transact(lambda session: session.run_sql("SELECT 1"))


async def test_row_held_by_someone_else_is_a_lock_timeout(
    orders: Store[OrdersUnitOfWork], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, done = asyncio.Event(), asyncio.Event()

    async def hold(uow: OrdersUnitOfWork) -> None:
        await uow.users.lock(["ann"])
        held.set()
        await done.wait()

    async def want(uow: OrdersUnitOfWork) -> None:
        await uow.session.run_sql("SET LOCAL lock_timeout = 50")
        await uow.users.lock(["ann"])

    holder = asyncio.create_task(orders.transact(hold))
    await held.wait()
    with pytest.raises(LockTimeout):
        await orders.transact(want)
    done.set()
    await holder


async def test_caller_who_leaves_does_not_undo_the_transaction(orders: Store[OrdersUnitOfWork]) -> None:
    begun, go_on, committed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(uow: OrdersUnitOfWork) -> None:
        await uow.users.lock(["ann"])
        uow.session.after_commit(committed.set)
        begun.set()
        await go_on.wait()

    caller = asyncio.create_task(orders.transact(work))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go_on.set()
    await committed.wait()
    assert await orders.database.transact(lambda session: session.run_sql("SELECT user_id FROM users"))


async def test_failed_work_leaves_nothing(orders: Store[OrdersUnitOfWork]) -> None:
    async def fail(uow: OrdersUnitOfWork) -> None:
        await uow.users.lock(["ann"])
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        await orders.transact(fail)
    assert await orders.database.transact(lambda session: session.run_sql("SELECT user_id FROM users")) == []


async def test_full_pool_is_a_transient_fault(
    orders: Store[OrdersUnitOfWork], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "ACQUIRE_SECONDS_MAX", 0.2)
    database = Database(orders.database.url, "small", connections_max=1)
    await database.open()
    begun, done = asyncio.Event(), asyncio.Event()

    async def hold(_session: Session) -> None:
        begun.set()
        await done.wait()

    holder = asyncio.create_task(database.transact(hold))
    await begun.wait()
    with pytest.raises(TransientFault):
        await database.transact(lambda session: session.run_sql("SELECT 1"))
    done.set()
    await holder
    await database.close()


def test_worker_of_the_version_before_leaves_a_newer_database_as_it_is(cluster: EmbeddedCluster) -> None:
    database_url = new_database_url(cluster.postgres_admin_url, "orders")
    migrate("orders", database_url, cluster.postgres_admin_url)
    connection = psycopg2.connect(on_database(cluster.postgres_admin_url, database_url))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("UPDATE alembic_version SET version_num = '9999'")
        migrate("orders", database_url, cluster.postgres_admin_url)
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT version_num FROM alembic_version")
            assert cursor.fetchall() == [("9999",)]
    finally:
        connection.close()


async def test_password_with_any_characters_lets_the_service_in(cluster: EmbeddedCluster) -> None:
    url = new_database_url(cluster.postgres_admin_url, "orders").replace(":secret@", ":p%40ss%2Fw%3A%25@")
    migrate("orders", url, cluster.postgres_admin_url)
    database = Database(url, "eshop-test")
    await database.open()
    await database.close()
