"""The Cloud Partner Portal API: requests, responses and locations, without I/O."""
