"""systemd: what the daemon tells it, the journal, and the installation of the units.

Outside systemd `notify` and `journal` do nothing.
"""
