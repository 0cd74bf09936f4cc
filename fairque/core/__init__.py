"""The pure part of FairQueue: models, names, encodings and tables; no input or output, and no clock."""
