"""Video: frames decoded, compared and encoded while the model reads and answers."""
