"""The provider's triggers, in the module named for the service."""
