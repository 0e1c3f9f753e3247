"""Settings, credentials, and sending requests."""
