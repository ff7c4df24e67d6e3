"""The study of pre-training objectives: which encoders help a detector, and which label-free figure says so."""
