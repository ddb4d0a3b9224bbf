"""What a model is really trained on: the batches of a data module, on the terminal and as a page."""
