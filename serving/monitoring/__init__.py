"""What operators see: metrics and traces. Nothing here knows a visitor, a user or an item."""
