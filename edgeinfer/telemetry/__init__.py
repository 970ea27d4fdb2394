"""What the machine's sensors say while the daemon runs, and what is done about heat."""
