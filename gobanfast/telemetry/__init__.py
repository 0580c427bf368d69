"""What an engine says of itself: the decision log (`log`), metrics (`metrics`)."""
