"""The provider's operators, in the module named for the service."""
