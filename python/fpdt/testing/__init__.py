"""What only tests and checks use."""
