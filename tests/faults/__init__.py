"""Plugins that go wrong on purpose, chosen by their dotted names."""
