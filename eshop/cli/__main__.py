"""Run the command as `python -m eshop.cli`, where no script is installed."""

from eshop.cli.main import app

app()
