"""Starter: a small picture-book diffusion model, from composed scenes to a diffusers folder."""
