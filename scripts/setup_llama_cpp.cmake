# Read by CMake when llama-cpp-python is compiled (scripts/setup_venv.py names this file).
# llama-cpp-python turns on llama.cpp's "common" library, which its programs need and its Python package does not:
# 53 of 127 files. A plain variable takes precedence over the cache entry that it forces.
set(LLAMA_BUILD_COMMON OFF)
