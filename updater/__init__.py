"""The updater: brings new versions of models from a repository into use, and publishes them (`publish/`).

The way of a release: source → trusted (TUF) → fetch (chunks) → store (slots on disk) → swap (workers load it beside the
old one, the link `current` is flipped) → watched → settled, or rolled back.
"""
