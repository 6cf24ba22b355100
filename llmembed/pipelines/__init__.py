"""What a user asks for, each a few plain steps: the command line and the jobs call these.

::

    compare/    ``compare`` and ``fit``: methods on one corpus, the best registered; ``report``
    predict/    ``predict``: labels for files of any size
    embed       fills the embedding store
    dry_run     what asking a language model would take
    doctor      what this machine has, and what is missing

    corpus      from an experiment's words to labelled texts
    methods     from an experiment's words to methods over resolved backbones
    generators  the language models of an experiment
    runtime     where work is done and where files lie
    sidecars    what lies beside a saved classifier
    models      where a classifier that the user names lies
    console     what is printed
"""
