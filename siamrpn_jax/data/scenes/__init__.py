"""Generated and pasted scenes."""
