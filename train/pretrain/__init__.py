"""Pre-training on unlabelled images: NMI-guided hybrid-attention distillation (UNIP) and masked auto-encoding."""
