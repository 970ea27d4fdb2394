"""Builds an engine in a child process, and checks it."""
