"""How a commit wakes the relay: by a signal in the same process, by NOTIFY from another."""

import asyncio
import logging

import aiopg

logger = logging.getLogger(__name__)

#: The pause after a lost connection. The relay's sweep covers it.
RECONNECT_SECONDS = 1.0
#: The channel of NOTIFY. The payload is empty: the outbox has the messages.
CHANNEL = "outbox"


class OutboxNotifier:
    """Notified after every commit that appended to the outbox."""

    def __init__(self) -> None:
        self._notified = asyncio.Event()
        #: Whether the active relay is in this process: then no NOTIFY is needed.
        self.is_heard_here = False

    def notify(self) -> None:
        """Notify: the outbox may have messages."""
        self._notified.set()

    async def wait(self, seconds_max: float) -> None:
        """Return after a notification since the last call, or after ``seconds_max`` at the latest."""
        try:
            async with asyncio.timeout(seconds_max):
                await self._notified.wait()
        except TimeoutError:
            return
        finally:
            self._notified.clear()


async def listen(url: str, notifier: OutboxNotifier) -> None:
    """Notify for every NOTIFY from another process, until cancelled."""
    while True:
        try:
            async with aiopg.connect(url, enable_hstore=False) as connection:
                async with connection.cursor() as cursor:
                    await cursor.execute(f"LISTEN {CHANNEL}")
                while True:
                    await connection.notifies.get()
                    notifier.notify()
        except asyncio.CancelledError:
            # aiopg turns a statement timeout at the server into a CancelledError.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
        except Exception as error:  # noqa: BLE001  nobody else would begin to listen again
            logger.warning("not listening to the outbox for now: %s", error)
        await asyncio.sleep(RECONNECT_SECONDS)
