"""What may be trusted: ownership, reachability, limits, redaction. Imports nothing of the rest."""
