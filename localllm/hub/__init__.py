"""The network, and nothing else: what a repository holds, and its files into the cache that huggingface_hub keeps."""
