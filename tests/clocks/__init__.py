"""Wall clocks that jump by an hour under load, each process's own or all of a host's at once."""
