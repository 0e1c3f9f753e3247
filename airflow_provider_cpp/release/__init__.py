"""Exactly-once submission, cancellation and approval, in a worker."""
