"""The straight line of an event: consent, pseudonym, redaction, durable append, features."""
