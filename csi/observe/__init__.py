"""What an operator sees of the driver; it is handed what it shows and looks for nothing."""
