"""The provider's sensors, in the module named for the service."""
