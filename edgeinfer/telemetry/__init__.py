"""What there is to know of a running daemon and its machine: snapshots, sensors, and the answer to heat."""
