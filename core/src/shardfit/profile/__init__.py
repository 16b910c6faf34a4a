"""What one pass over the data learns: the same for the whole table, however it was divided."""

from shardfit.profile.samples import DistinctValues, SampleSpec
from shardfit.profile.summary import LARGEST_EXACT_INTEGER, Profile, ProfileBuilder

__all__ = ["LARGEST_EXACT_INTEGER", "DistinctValues", "Profile", "ProfileBuilder", "SampleSpec"]
