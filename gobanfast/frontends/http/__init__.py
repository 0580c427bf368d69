"""What the HTTP frontends share."""
