"""The only door to llama.cpp in the runtime: handles are owned here, native failures become errors of ours."""
