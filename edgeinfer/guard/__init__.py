"""What may be trusted and what is bounded: who can write a file or reach an address, sizes, memory, secrets."""
