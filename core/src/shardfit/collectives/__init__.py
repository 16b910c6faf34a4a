"""Arrays that workers add up, hand round and wait for: for trainers whose library has no such calls of its own."""

from shardfit.collectives.contract import Collectives
from shardfit.collectives.meeting import Meeting, meeting_point

__all__ = ["Collectives", "Meeting", "meeting_point"]
