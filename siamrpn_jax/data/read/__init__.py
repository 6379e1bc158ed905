"""Files that users have: images, annotations, benchmarks."""
