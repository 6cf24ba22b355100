"""What a replica does, without HTTP and without Ray: texts in, answers of a classifier out."""
