"""Build time: trains the user transformer and exports it to ONNX. Alone may import torch and transformers.

The room is still empty: its first tenant, the user transformer, comes with its own issue. It is here so that the import
contracts already hold for it (pyproject.toml), and it meets the worker in a file, the artifact, never by import.
"""
