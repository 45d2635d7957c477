"""The file that fal made: brought here without the key, checked, and put in place whole."""
