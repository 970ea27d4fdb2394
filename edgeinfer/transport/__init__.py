"""Connections over ZeroMQ: a subscriber's side, CURVE keys, and who is connected."""
