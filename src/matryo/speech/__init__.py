"""Speech to text: prompts, captions with times, files (`transcribe`) and live sound (`listen`)."""
