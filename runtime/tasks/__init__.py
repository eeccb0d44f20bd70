"""What a model is asked besides to continue a text: embeddings, labels."""
