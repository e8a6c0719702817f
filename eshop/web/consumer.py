"""Faust's consumer, with a say in where it reads. What is private of Faust's and needed for it is here."""

from collections.abc import Iterable, Mapping

from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP


class SeekingConsumer(Consumer):
    """A consumer that passes over nothing in an assignment."""

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Let the partitions be read once the flow is resumed, which Faust does next, after a seek.

        Where a table was recovered the flow runs already. What it brought between the seek and Faust's last
        step would be lost: that step empties the agents' queues.
        """
        self.stop_flow()
        super().resume_partitions(tps)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the committed offsets, and to the start where there is none.

        aiokafka leaves a partition without one where it stands. A fetch that was under way when the partition
        came stands past messages that Faust dropped: nobody would read them before the next assignment.
        """
        committed = await super().seek_to_committed()
        never = [tp for tp, offset in committed.items() if not offset and not self._is_changelog_tp(tp)]
        if never:
            await self._thread.seek_to_beginning(*never)
        return committed


class SeekingTransport(Transport):
    """Faust's transport, with that consumer."""

    Consumer = SeekingConsumer
