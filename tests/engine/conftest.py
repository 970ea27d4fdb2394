"""Settings for these tests."""

from hypothesis import settings

settings.register_profile("engine", deadline=None)  # other work on the machine must not fail a test
settings.load_profile("engine")
