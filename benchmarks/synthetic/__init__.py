"""Full-size random Gemma 3n checkpoints, the same values in Hugging Face and GGUF layout.

Speed does not depend on the values of the weights, only on their number and format, so engines can
be compared without anybody's weights. `shapes` says which tensors exist and how their values are
spread, `values` draws them chunk by chunk, `hugging_face` and `gguf_file` write them, `vocabulary`
supplies a tokenizer of the right size.
"""
