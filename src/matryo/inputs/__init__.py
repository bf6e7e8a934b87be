"""Text, pictures, sound and video to token ids and arrays, and token ids back to text."""
