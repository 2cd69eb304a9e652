"""Build time: trains the user transformer, exports it to ONNX, and says how good it is. Alone may import torch.

It meets the worker in a file, the artifact (features.artifact), never by import. `import model_export` imports nothing: the
commands import torch and its kin when they run.
"""
