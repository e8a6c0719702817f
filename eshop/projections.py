"""The projections worker: ``faust -A eshop.projections worker -l info``. Everything is wired here."""

from functools import partial

from eshop.agents import projections
from eshop.agents.watchdog import LOOK_SECONDS, PartitionProgress, Watch
from eshop.contracts.services import PROJECTED, PROJECTIONS
from eshop.contracts.topics import PARTITIONS
from eshop.kafka.log import next_offset, read_from
from eshop.kafka.topics import Copies, ensure, ensure_topics, new_topic
from eshop.process.app import ServiceApp
from eshop.process.consumer import SeekingConsumer
from eshop.process.exit import end_process
from eshop.process.periodic import register_periodic
from eshop.process.start import when_there
from eshop.settings import Settings
from eshop.tables import users
from eshop.web.projections import install_projections

#: How often a gap in what was read of the changelog is looked for: a start has to read so much more at most.
CATCH_UP_SECONDS = 5.0


def create_app(settings: Settings) -> ServiceApp:
    """Return the worker's app. Nothing is connected before it is started."""
    app = ServiceApp(PROJECTIONS, settings)
    sources = [settings.topic(known.name) for known in PROJECTED]
    table = users.register(app, end_process)
    projections.register(app, sources, table)
    install_projections(app, table)
    app.add_check("tables", table.check)

    async def progress(consumer: SeekingConsumer) -> list[PartitionProgress]:
        partitions = [tp for tp in consumer.assignment() if tp.topic in sources]
        ends = await consumer.highwaters(*partitions)
        return [PartitionProgress(tp, consumer.committed(tp) or 0, ends[tp]) for tp in partitions]

    watch = Watch(app, sources, progress, partial(next_offset, settings.kafka), "projections.users")
    register_periodic(app, LOOK_SECONDS, watch.look, "the watch on projections.users")

    register_periodic(
        app,
        CATCH_UP_SECONDS,
        partial(table.catch_up, partial(read_from, settings.kafka)),
        "reading the changelog",
    )

    async def have_topics() -> None:
        copies = Copies(settings.topic_replication, settings.topic_min_in_sync)
        await ensure_topics(settings.kafka, settings.topic_prefix, copies)
        # Faust makes it too, but does not wait until the broker shows it: of several workers that started at
        # once, all ignored it, and none had a partition of the table until one was started again.
        changelog = table.table.changelog_topic_name
        await ensure(settings.kafka, [new_topic(changelog, PARTITIONS, users.CHANGELOG_CONFIG, copies)])

    @app.before_start
    async def prepare() -> None:
        await when_there(have_topics)

    return app


app = create_app(Settings())
