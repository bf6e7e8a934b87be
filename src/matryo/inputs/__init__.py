"""Text (later also images and sound) to token ids and arrays, and token ids back to text."""
