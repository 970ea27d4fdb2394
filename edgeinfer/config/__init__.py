"""Every setting, declared once and read strictly; source URIs, model cards, and the loading of plugins."""
