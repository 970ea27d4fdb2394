"""What the daemon says to systemd: its state and its heartbeat (`notify`), its log (`journal`).

Outside systemd nothing here does anything.
"""
