"""Videos in and out, drawing, animated pictures."""
