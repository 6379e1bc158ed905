"""Windows of images, and the prepared format made of them."""
