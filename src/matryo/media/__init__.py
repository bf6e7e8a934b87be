"""Pictures and sound on their way into the language model: encoders, embeddings, places."""
