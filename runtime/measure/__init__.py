"""Running a model to learn about it: how well it predicts a text, and how far from another model it is."""
