"""Generative models behind one narrow contract: schedules, denoisers, samplers, generators."""
