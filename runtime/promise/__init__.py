"""A model made smaller under a promise: a size, or a loss that was measured, with the best types for it."""
