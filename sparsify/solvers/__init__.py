"""Mathematics on plain arrays: which weights to keep, and how to store them in fewer bits."""
