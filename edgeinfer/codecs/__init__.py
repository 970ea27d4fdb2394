"""Packets → pictures: a file for each way to decode video."""
