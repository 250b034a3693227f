"""What ships inside the package."""
