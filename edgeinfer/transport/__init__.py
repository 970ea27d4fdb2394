"""A subscriber's connection, CURVE keys, and who is connected."""
