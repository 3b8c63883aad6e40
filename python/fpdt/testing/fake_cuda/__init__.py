"""A CUDA device made up on the CPU, under the worker's real CUDA runtime: for tests of what the runtime orders."""
