"""Between the controller and a rank."""
