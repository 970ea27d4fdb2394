"""From a source to the mailbox: a thread that reads, a thread that watches it, and the ladder that it climbs back."""

from edgeinfer.capture.job import Hung, Job, Limits
from edgeinfer.capture.supervisor import CaptureThread

__all__ = ["CaptureThread", "Hung", "Job", "Limits"]
