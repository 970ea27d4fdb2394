"""Sources in processes of their own: what decodes others' bytes may hang, swell or crash there without harm."""
