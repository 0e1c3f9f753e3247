"""The provider's hooks, in the module named for the service."""
