"""Distillation: a finished run teaches a smaller model by its logits, its last layer's map and its attention."""
