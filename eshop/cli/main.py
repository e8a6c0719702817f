"""The `eshop` command, with a subcommand for each task of a developer or operator."""

from eshop.cli import accounts, audit, data, deadletters, doctor, orders, status, timeline, up
from eshop.cli.console import App

app = App(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Run the shop on this machine: real Kafka, Postgres and Valkey, the workers and the gateway.\n\n"
        "Example: [bold]eshop up[/], then [bold]eshop status[/] in another terminal. Settings are the "
        "environment's ESHOP_*."
    ),
)
app.command()(up.up)
app.command()(up.down)
app.command()(status.status)
app.command()(status.logs)
app.command()(data.reset)
app.command()(data.topics)
app.command()(data.migrate)
app.command()(audit.audit)
app.command()(timeline.timeline)
app.command()(doctor.doctor)
app.command()(doctor.version)
app.add_typer(accounts.app, name="accounts")
app.add_typer(orders.app, name="orders")
app.add_typer(deadletters.app, name="deadletters")

if __name__ == "__main__":
    app()
