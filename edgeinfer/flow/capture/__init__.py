"""From a source to the mailbox: a thread that reads, a thread that watches it, and the ladder that it climbs back."""

from edgeinfer.flow.capture.job import Deadlines, Hung, Job
from edgeinfer.flow.capture.ladder import CaptureThread

__all__ = ["CaptureThread", "Deadlines", "Hung", "Job"]
