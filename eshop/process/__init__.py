"""The parts of every worker process: Faust app, consumer, periodic work, start and end."""
