"""The Faust edge: stream, deliver, acknowledge."""
