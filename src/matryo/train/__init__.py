"""Training of nested models: recipe in, a checkpoint that holds every size out.

The only part of Matryo that imports torch and transformers (`pip install 'matryo[train]'`); nothing
outside imports it but the command line, and that inside its commands.
"""
