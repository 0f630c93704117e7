"""The words that every part of Roost shares: wire types, configuration, errors.

Pure msgspec types; nothing here does I/O. Types on the wire carry a version `v` and ignore fields that they do
not know, so that an old part reads a newer part's message; types in configuration refuse unknown fields.
"""
