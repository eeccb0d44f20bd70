"""The layers of BERT in a kernel of our own, for CPUs on which it is quicker than llama.cpp's graph."""
