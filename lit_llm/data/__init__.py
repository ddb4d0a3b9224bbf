"""Text -> ids -> tensors, and the LightningDataModules that serve them."""
