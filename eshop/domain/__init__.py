"""Pure decisions about money, orders and payments: no clock, no I/O, no environment."""
