"""Published weights in and out: folders in the Hugging Face layout to models of ours, and back.

    config.json + *.safetensors (+ index) + tokenizer files  ⇄  wiring + named tensors + fitted modalities

    model = load_published("openai-community/gpt2")      # or a folder
    publish(model, "gpt2-mine")                          # transformers loads it
    convert(source, destination)                         # either way, with a passport

What each architecture is stands in its family (sevenfold.family). Nothing executes code from a folder; pickles are refused.
"""
