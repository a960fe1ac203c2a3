"""How good a model is, and which model is the champion."""
