"""The only package that knows NATS and Redis. Everything else speaks through it."""
