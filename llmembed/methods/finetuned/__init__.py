"""A whole model is trained on labelled texts: an encoder with heads, or a decoder that writes."""
