"""What every worker process is made of: its Faust app, consumer, periodic work, start and end."""
