"""Text from a trained backbone."""
