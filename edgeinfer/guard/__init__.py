"""What may be trusted: who can write a file, who can reach an address, how large an input may be, what is a secret."""
