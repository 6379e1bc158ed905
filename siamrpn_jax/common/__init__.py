"""What every room may use: errors, files, configs."""
