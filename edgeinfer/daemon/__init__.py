"""The running daemon: puts the parts together, starts them, changes them while they run, and stops them."""
